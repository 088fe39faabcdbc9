"""Takes files out of the inbox and files them: the only module that renames images.

Nothing is ever overwritten and nothing of a sender's is ever deleted. A claim is one
rename into the work folder on the inbox's own file system; filing is one rename into the
target folder, or, across file systems, copy, fsync, hash, rename, unlink. Every step can
be done again after a kill: what is already done is found done.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from xray_watcher.core.naming import is_plain
from xray_watcher.core.values import SeenFile
from xray_watcher.errors import Unavailable
from xray_watcher.intake.below import FOLDER, made_below, opened_below, parent_below
from xray_watcher.intake.claims import (
    Barred,
    ChangedAfterClaim,
    Claimed,
    Move,
    NameRefused,
    Signature,
    TargetTaken,
)
from xray_watcher.intake.hashes import check_filed, has_hash
from xray_watcher.intake.readiness import Readiness, readiness_of
from xray_watcher.intake.uploads import Uploads
from xray_watcher.intake.work_names import claimed_ids, leftovers, work_name
from xray_watcher.system.advice import refusal
from xray_watcher.system.files import (
    OPEN_FILE,
    copy,
    directory,
    move,
    probe,
    rename_noreplace,
    replace,
    sha256_of,
    sync,
    sync_folder,
    write_whole,
)
from xray_watcher.system.mounts import Place, has_vanished, longest_name

_BARRING = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY})
"""What the kernel says of a file that belongs to others, or that they keep for themselves."""

_REFUSING = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})
"""What file systems say of a name: too long, or with a character that they do not have."""


class Spool:
    """The folders that images pass through.

    Args:
        inbox: the shared folder.
        work: the work folder, on the inbox's file system.
        targets: path of each folder that images are filed in, by its key.
        root: paths below it are shown relative to it.
    """

    def __init__(self, inbox: str, work: str, targets: Mapping[str, str], root: str) -> None:
        self._inbox = inbox
        self._work = work
        self._targets = targets
        self._root = root
        self._places: dict[str, Place] = {}  # of the targets, by their keys
        self.uploads = Uploads(work)

    @property
    def work(self) -> str:
        """The work folder."""
        return self._work

    def make_inbox(self) -> None:
        """Make inbox and work folder where they are missing, as at the very first start.

        Raises:
            Unavailable: a folder cannot be made or written; the message names it.
        """
        for folder in (self._inbox, self._work):
            _make_usable(folder)

    def make_targets(self) -> None:
        """Make the folders that images are filed in where they are missing, and try each.

        Raises:
            Unavailable: a folder cannot be made or written; the message names it.
        """
        for key, folder in self._targets.items():
            _make_usable(folder)
            self._places[key] = Place(folder)

    def keep_targets(self) -> None:
        """Make the folders anew that somebody has tidied away.

        Raises:
            Unavailable: one cannot be made, or its share is away.
        """
        for place in self._places.values():
            try:
                place.keep()
            except OSError as error:
                what = f"The folder {place.folder} cannot be made"
                raise _unavailable("folders", what, error) from error

    # -- claiming -------------------------------------------------------------------------

    def readiness(self, file: SeenFile, *, overdue: bool) -> Readiness:
        """Whether a settled file may be claimed: unchanged, no local writer, looks whole.

        Args:
            file: as it was last seen.
            overdue: take it even if it does not look whole.

        Raises:
            Unavailable: the inbox cannot be read.
        """
        try:
            with opened_below(self._inbox, file.path) as fd:
                return readiness_of(fd, file, overdue=overdue)
        except FileNotFoundError:
            return "gone"
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                return "gone"  # a link or a device has taken its place
            if error.errno in _BARRING:
                return "barred"
            raise _unavailable("inbox", "A file in the inbox cannot be read", error) from error

    def claim(self, path: str, image_id: int) -> bool:
        """Rename a file of the inbox into the work folder.

        Returns:
            False when it is not there any more.

        Raises:
            Barred: this file may not be moved; it is still in the inbox.
            Unavailable: the rename failed. The file is still in the inbox, unless the share went
                away before it could be seen whether the rename was done all the same.
        """
        try:
            work = os.open(self._work, FOLDER)
        except OSError as error:
            what = f"The work folder {self._work} cannot be opened"
            raise _unavailable("inbox", what, error) from error
        try:
            with parent_below(self._inbox, path) as parent:
                name = os.path.basename(path)
                rename_noreplace(
                    name,
                    work_name(image_id),
                    source_dir=parent,
                    target_dir=work,
                    is_own_name=True,
                )
        except OSError as error:
            # A network file system may report a failure of a rename that was done.
            is_taken = error.errno == errno.EEXIST  # by another's file: ids of ours are new
            if not is_taken and os.path.lexists(self.work_path(image_id)):
                return True
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            if self._bars_one(error):
                raise Barred(os.strerror(error.errno or 0)) from error
            raise _unavailable("inbox", "A file cannot leave the inbox", error) from error
        finally:
            os.close(work)
        return True

    def _bars_one(self, error: OSError) -> bool:
        """Whether a failure to rename is of one file or folder, and not of the whole inbox."""
        if error.errno == errno.EXDEV:  # another file system is mounted within the inbox
            return os.stat(self._inbox).st_dev == os.stat(self._work).st_dev
        return error.errno in _BARRING and os.access(self._work, os.W_OK | os.X_OK)

    def sync_claims(self, paths: Sequence[str]) -> None:
        """Make the renames of these files out of the inbox last through a power cut.

        Raises:
            Unavailable: the share of the inbox went away.
        """
        try:
            sync_folder(self._work)
            for folder in {os.path.dirname(path) for path in paths}:
                with suppress(FileNotFoundError):  # its sender may have removed it meanwhile
                    sync_folder(os.path.join(self._inbox, folder))
        except OSError as error:
            raise _unavailable("storage", "Claims cannot be confirmed", error) from error

    def work_path(self, image_id: int) -> str:
        """Where a claimed file lies."""
        return os.path.join(self._work, work_name(image_id))

    def examine(self, image_id: int) -> Claimed | None:
        """Hash a claimed file and make sure that its bytes are on disk.

        A file with more than one name gets an inode of its own first, so that nobody who
        holds the other name can change what is filed.

        Returns:
            None when it has vanished or is not a regular file.

        Raises:
            Unavailable: it cannot be read.
        """
        path = self.work_path(image_id)
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                return None  # it took the file's place before the claim; it is left over
            if status.st_nlink > 1:
                _make_sole_name(path)
            fd = os.open(path, OPEN_FILE)
        except OSError as error:
            if has_vanished(path):
                return None
            raise _unavailable("storage", "A claimed file cannot be read", error) from error
        try:
            signature = _flushed_signature(fd)  # first: a writer may go on while it is hashed
            return Claimed(path, sha256_of(fd), signature)
        except OSError as error:
            raise _unavailable("storage", "A claimed file cannot be read", error) from error
        finally:
            os.close(fd)

    def unchanged(self, claimed: Claimed) -> bool:
        """Whether a claimed file still is as it was hashed."""
        try:
            return _signature(os.lstat(claimed.path)) == claimed.signature
        except OSError:
            return False  # what it is to be called instead comes out when it is examined again

    def is_in_inbox(self, path: str) -> bool:
        """Whether something lies at a path below the inbox."""
        return os.path.lexists(os.path.join(self._inbox, path))

    def claimed_ids(self) -> set[int]:
        """The ids of all files in the work folder.

        Raises:
            Unavailable: the work folder cannot be listed.
        """
        return claimed_ids(self._work)

    def leftovers(self) -> list[str]:
        """Names in the work folder of what took the place of a file just before it was claimed.

        A link, a pipe, a folder: nobody touches it any more.

        Raises:
            Unavailable: the work folder cannot be listed.
        """
        return leftovers(self._work)

    def adopt(self, work_id: int, image_id: int) -> None:
        """Give a file in the work folder that no row knows the name of its new row."""
        with directory(self._work) as work:
            rename_noreplace(
                work_name(work_id),
                work_name(image_id),
                source_dir=work,
                target_dir=work,
                is_own_name=True,
            )

    # -- filing ---------------------------------------------------------------------------

    def taken(self, folder: str, name: str) -> bool:
        """Whether a name in a target folder is taken."""
        return os.path.lexists(self.target_path(folder, name))

    def longest_name(self, folder: str) -> int:
        """How many bytes a name in a target folder may have, as far as is known."""
        return longest_name(self._targets[folder])

    def target_path(self, folder: str, name: str) -> str:
        """Where an image with this name is filed."""
        return os.path.join(self._targets[folder], name)

    def filed_names(self) -> Iterator[tuple[str, str]]:
        """Every file in the target folders: key of the folder, and name."""
        for key, folder in self._targets.items():
            with suppress(FileNotFoundError):
                yield from ((key, name) for name in sorted(os.listdir(folder)))

    def shown_path(self, folder: str, name: str) -> str:
        """The path of a filed image as records show it: relative where it lies below the root."""
        path = self.target_path(folder, name)
        relative = os.path.relpath(path, self._root)
        return path if relative.startswith("..") else relative

    def file(self, move: Move) -> None:
        """File one image; done again after a kill it goes on where it was.

        Raises:
            FileNotFoundError: it is neither in the work folder nor in its target folder.
            TargetTaken: another file has the name.
            NameRefused: the file system does not take the name, but might take a plain one.
            ChangedAfterClaim: its bytes are not those that were decided upon.
            Unavailable: the target cannot be written; the file is still in the work folder.
        """
        source, target = self.work_path(move.image_id), self.target_path(move.folder, move.name)
        try:
            self._places[move.folder].keep()
            if has_vanished(source):
                check_filed(target, move.sha256)
            elif has_hash(target, move.sha256) and has_hash(source, move.sha256):
                os.unlink(source)  # a copy across file systems was complete
            else:
                self._move(source, target, move)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and has_vanished(source):
                raise
            if error.errno in _REFUSING and not is_plain(move.name):
                raise NameRefused(f"Image {move.image_id}: {os.strerror(error.errno)}.") from error
            folder = os.path.dirname(target)
            raise _unavailable("folders", f"An image cannot be filed in {folder}", error) from error

    def _move(self, source: str, target: str, move: Move) -> None:
        if move.with_reason:
            with suppress(FileNotFoundError):
                os.lstat(target + ".json")  # if that is refused, better before the image lies there
        if _signature(os.lstat(source)) != move.signature and not has_hash(source, move.sha256):
            raise ChangedAfterClaim(f"Image {move.image_id} changed after it was decided.")
        try:
            rename_noreplace(source, target)
        except FileExistsError as error:
            raise _taken(move) from error
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._move_across(source, target, move)

    def _move_across(self, source: str, target: str, move: Move) -> None:
        """Copy beside the target, sync, check the hash, rename, and only then unlink."""
        part = os.path.join(os.path.dirname(target), f".tmp.{work_name(move.image_id)}")
        copy(source, part)
        if not has_hash(part, move.sha256):
            os.unlink(part)
            raise ChangedAfterClaim(f"Image {move.image_id} changed while it was filed.")
        try:
            rename_noreplace(part, target)
        except OSError as error:
            if error.errno == errno.EEXIST or error.errno in _REFUSING:
                os.unlink(part)  # its new name may be in another folder
            if error.errno == errno.EEXIST:
                raise _taken(move) from error
            raise
        sync_folder(os.path.dirname(target))
        os.unlink(source)

    def sync_filed(self, folders: Sequence[str]) -> None:
        """Make filed images last through a power cut.

        Raises:
            Unavailable: a folder went away.
        """
        try:
            for folder in sorted(set(folders)):
                sync_folder(self._targets[folder])
            sync_folder(self._work)
        except OSError as error:
            raise _unavailable("storage", "Filed images cannot be confirmed", error) from error

    def write_beside(self, move: Move, content: bytes) -> None:
        """Write `NAME.json` beside a filed image, whole or not at all.

        Raises:
            Unavailable: it cannot be written.
        """
        path = self.target_path(move.folder, move.name) + ".json"
        try:
            write_whole(path, content)
        except OSError as error:
            raise _unavailable("storage", "A reason cannot be written", error) from error

    def put_back(self, folder: str, name: str, inbox_path: str) -> str:
        """Move a filed image back to the inbox, for another try.

        Args:
            folder: key of the folder that it lies in.
            name: its name there.
            inbox_path: where in the inbox it came from; a free name beside it is found.

        Returns:
            Its path below the inbox now.

        Raises:
            FileNotFoundError: it is not there any more.
            Unavailable: it lies where it was: the share of the inbox is away, a link or a file
                lies in a folder's place, or it cannot be moved.
        """
        source, wanted = self.target_path(folder, name), os.path.basename(inbox_path)
        if has_vanished(source):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        try:
            with made_below(self._inbox, self._work, inbox_path) as parent:
                found = _moved_to_free_name(source, wanted, parent)
        except OSError as error:
            if has_vanished(source):
                raise FileNotFoundError(error.errno, error.strerror, source) from error
            raise _unavailable("inbox", "It cannot go back into the inbox", error) from error
        self.forget_reason(folder, name)
        return inbox_path.removesuffix(wanted) + found

    def forget_reason(self, folder: str, name: str) -> None:
        """Remove `NAME.json` of a file that was put back: it stands in the ledger and the log.

        Raises:
            Unavailable: it cannot be removed.
        """
        try:
            with suppress(FileNotFoundError):
                os.unlink(self.target_path(folder, name) + ".json")
        except OSError as error:
            what = "It is put back, but the reason beside it cannot be removed"
            raise _unavailable("storage", what, error) from error


def _make_sole_name(path: str) -> None:
    part = path + ".tmp"
    copy(path, part)
    replace(part, path)


def _make_usable(folder: str) -> None:
    """Make a folder unless it is there; then create, rename, sync and remove a file in it."""
    try:
        os.makedirs(folder, exist_ok=True)
        probe(folder)
    except OSError as error:
        raise Unavailable(
            "folders", refusal(f"The folder {folder} cannot be used", error)
        ) from error


def _moved_to_free_name(source: str, wanted: str, parent: int) -> str:
    """Move a file into an opened folder, under the name that is wanted or one beside it."""
    for name in _free_names(wanted):
        with suppress(FileExistsError):
            move(source, name, _returning(source), parent)
            return name
    raise AssertionError("the free names never end")


def _returning(source: str) -> str:
    """A hidden name beside the target, for a move across file systems."""
    short = hashlib.sha256(os.fsencode(source)).hexdigest()[:16]  # its own may be too long for one
    return f".retry-{short}.tmp"


def _free_names(name: str) -> Iterator[str]:
    """The name itself, then `name-2.jpg`, `name-3.jpg` ..."""
    yield name
    stem, suffix = os.path.splitext(name)
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


def _taken(move: Move) -> TargetTaken:
    return TargetTaken(f"Image {move.image_id}: another file has its name in {move.folder}.")


def _flushed_signature(fd: int) -> Signature:
    """Flush a sender's bytes to disk: once filed we answer for them, also after a power cut."""
    sync(fd)
    return _signature(os.fstat(fd))


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _unavailable(cause: str, what: str, error: OSError) -> Unavailable:
    return Unavailable(cause, f"{what} ({os.strerror(error.errno or 0)}).")
