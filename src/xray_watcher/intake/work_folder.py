"""The work folder, on the inbox's own file system: claimed files lie there until they are filed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xray_watcher.config.folders import Folders
from xray_watcher.core.naming import WORK_FOLDER
from xray_watcher.core.values import LARGEST_FILE_BYTES
from xray_watcher.errors import Unavailable
from xray_watcher.intake.claims import Claimed, ClaimUnclear
from xray_watcher.intake.hashes import has_hash
from xray_watcher.intake.nofollow import check_device
from xray_watcher.intake.refusals import (
    BUSY,
    FORBIDDEN,
    file_problem,
    kernel_reason,
    make_signature,
    unavailable,
)
from xray_watcher.intake.work_names import is_number, parse_work_name, work_name
from xray_watcher.system.advice import refusal
from xray_watcher.system.files import (
    OPEN_FILE,
    compute_sha256,
    copy,
    directory,
    flush,
    probe,
    rename_noreplace,
    replace,
    sync_folder,
)
from xray_watcher.system.mounts import has_vanished, is_same_mount


def find_work_folder(folders: Folders) -> str:
    """Where claimed files lie: always on the mount of the inbox, which must exist."""
    below_root = os.path.commonpath((folders.inbox, folders.root)) == folders.root
    try:
        if below_root and is_same_mount(folders.inbox, folders.root):
            return os.path.join(folders.root, WORK_FOLDER)
    except OSError as error:
        raise Unavailable(
            "inbox", refusal(f"The inbox {folders.inbox} cannot be seen", error)
        ) from error
    return os.path.join(folders.inbox, WORK_FOLDER)


class WorkFolder:
    """The claimed files.

    Args:
        inbox: the shared folder.
        path: of the work folder, on the inbox's file system.
    """

    def __init__(self, inbox: str, path: str) -> None:
        self.path = path
        self._inbox = inbox

    def claimed_path(self, image_id: int) -> str:
        """Where a claimed file lies."""
        return os.path.join(self.path, work_name(image_id))

    def check_reach(self) -> None:
        """See that the inbox and its work folder are there.

        Raises:
            Unavailable: they are not.
        """
        check_device(self._inbox, self.path)

    def check_writable(self, error: OSError) -> None:
        """See that a failure is of one file, and not of the inbox and its work folder.

        Raises:
            Unavailable: one of them is out of reach, or nothing can be written there.
        """
        self.check_reach()
        try:
            if error.errno not in FORBIDDEN | BUSY | {errno.EXDEV}:
                probe(self.path)
            elif not os.access(self.path, os.W_OK | os.X_OK):
                raise error
        except OSError as refused:
            what = f"The work folder {self.path} cannot be written"
            raise unavailable("inbox", what, refused) from error

    def is_claimed(self, image_id: int) -> bool:
        """Whether something lies here by the name of a claimed file.

        Raises:
            ClaimUnclear: that cannot be seen.
            Unavailable: the work folder is out of reach.
        """
        try:
            os.lstat(self.claimed_path(image_id))
        except FileNotFoundError:
            return False
        except OSError as error:
            self.check_writable(error)
            raise ClaimUnclear(kernel_reason(error)) from error
        return True

    def sync(self) -> None:
        """Make the renames into this folder last through a power cut.

        Raises:
            Unavailable: the share of the inbox went away.
        """
        try:
            sync_folder(self.path)
        except OSError as error:
            raise unavailable("storage", "Claims cannot be confirmed", error) from error

    def examine(self, image_id: int) -> Claimed | None:
        """Hash a claimed file and make sure that its bytes are on disk.

        A file with more than one name gets an inode of its own first, so that nobody who
        holds the other name can change what is filed. One that no setting takes is not read.

        Returns:
            None when it has vanished or is not a regular file.

        Raises:
            FileProblem: it cannot be read.
            Unavailable: the work folder is out of reach.
        """
        path = self.claimed_path(image_id)
        try:
            seen = self.seen(image_id)
            if seen is None or seen.signature.size > LARGEST_FILE_BYTES:
                return seen
            if os.lstat(path).st_nlink > 1 or not _is_flushed(path):
                _make_sole_name(path)
            with _open(path) as fd:
                signature = make_signature(os.fstat(fd))  # first: a writer may go on meanwhile
                return Claimed(path, compute_sha256(fd, LARGEST_FILE_BYTES), signature)
        except OSError as error:
            if has_vanished(path):
                return None
            self.check_reach()
            raise file_problem("unreadable", error) from error

    def seen(self, image_id: int) -> Claimed | None:
        """A claimed file as a look at it finds it, without a hash.

        Returns:
            None when it has vanished or is not a regular file.

        Raises:
            FileProblem: it cannot be looked at.
            Unavailable: the work folder is out of reach.
        """
        path = self.claimed_path(image_id)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            if has_vanished(path):
                return None
            raise
        except OSError as error:
            self.check_reach()
            raise file_problem("unreadable", error) from error
        if not stat.S_ISREG(status.st_mode):
            return None  # it took the file's place before the claim; it is left over
        return Claimed(path, None, make_signature(status))

    def claimed_ids(self) -> set[int]:
        """The ids of all files here.

        Raises:
            Unavailable: the folder cannot be listed.
        """
        return {int(name) for name, is_claimed in self._numbers().items() if is_claimed}

    def leftovers(self) -> list[str]:
        """The numbers here that are no claimed files: links, pipes, folders, numbers not of ours.

        Each took the place of a file just before it was claimed. Nobody touches it any more.

        Raises:
            Unavailable: the folder cannot be listed.
        """
        return sorted(name for name, is_claimed in self._numbers().items() if not is_claimed)

    def _numbers(self) -> dict[str, bool]:
        """Every number here, and whether it is a claimed file."""
        try:
            with os.scandir(self.path) as entries:
                return {each.name: _is_claimed(each) for each in entries if is_number(each.name)}
        except OSError as error:
            what = f"The work folder {self.path} cannot be listed"
            raise unavailable("inbox", what, error) from error

    def adopt(self, work_id: int, image_id: int) -> None:
        """Give a file that no row knows the name of its new row.

        Raises:
            FileProblem: it cannot be renamed.
            Unavailable: the work folder is out of reach.
        """
        try:
            with directory(self.path) as work:
                rename_noreplace(
                    work_name(work_id),
                    work_name(image_id),
                    source_dir=work,
                    target_dir=work,
                    is_own_name=True,
                )
        except OSError as error:
            self.check_writable(error)
            raise file_problem("unmovable", error) from error

    def clear(self, image_id: int, sha256: bytes | None) -> None:
        """Remove a claimed file whose copy is filed; another file stays."""
        path = self.claimed_path(image_id)
        with suppress(OSError):
            if sha256 is not None and has_hash(path, sha256):
                os.unlink(path)


def _is_claimed(entry: os.DirEntry[str]) -> bool:
    return parse_work_name(entry.name) is not None and entry.is_file(follow_symlinks=False)


def is_unchanged(claimed: Claimed) -> bool:
    """Whether a claimed file still is as it was hashed."""
    try:
        return make_signature(os.lstat(claimed.path)) == claimed.signature
    except OSError:
        return False  # what it is to be called instead comes out when it is examined again


def _is_flushed(path: str) -> bool:
    """Flush a sender's bytes to disk: once filed we answer for them, also after a power cut.

    Returns:
        False when the disk did not confirm. Linux then takes the pages for clean, so that only
        what is written anew can still be confirmed.
    """
    with _open(path) as fd:
        try:
            flush(fd)
        except OSError:
            return False
    return True


@contextmanager
def _open(path: str) -> Iterator[int]:
    fd = os.open(path, OPEN_FILE)
    try:
        yield fd
    finally:
        os.close(fd)


def _make_sole_name(path: str) -> None:
    part = path + ".tmp"
    try:
        copy(path, part)
        replace(part, path)
    finally:
        with suppress(OSError):
            os.unlink(part)
