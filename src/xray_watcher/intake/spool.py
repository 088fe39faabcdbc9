"""Takes files out of the inbox; `filing` files them. No other module renames images.

Nothing is ever overwritten and nothing of a sender's is ever deleted. A claim is one
rename into the work folder on the inbox's own file system. Every step can be done again
after a kill: what is already done is found done.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from xray_watcher.core.values import LARGEST_FILE_BYTES, SeenFile
from xray_watcher.errors import Unavailable
from xray_watcher.intake.below import FOLDER, checked_device, opened_below, parent_below
from xray_watcher.intake.claims import Claimed, ClaimUnclear
from xray_watcher.intake.filing import Filing, make_usable
from xray_watcher.intake.readiness import Readiness, readiness_of
from xray_watcher.intake.refusals import (
    BUSY,
    FORBIDDEN,
    GONE,
    reason_of,
    signature_of,
    trouble_of,
    unavailable,
)
from xray_watcher.intake.returned import Returned
from xray_watcher.intake.uploads import Uploads
from xray_watcher.intake.work_names import claimed_ids, leftovers, work_name
from xray_watcher.system.files import (
    OPEN_FILE,
    copy,
    directory,
    flush,
    probe,
    remove,
    rename_noreplace,
    replace,
    sha256_of,
    sync_folder,
)
from xray_watcher.system.mounts import has_vanished


class Spool(Filing):
    """The folders that images pass through.

    Args:
        inbox: the shared folder.
        work: the work folder, on the inbox's file system.
        targets: path of each folder that images are filed in, by its key.
        root: paths below it are shown relative to it.
        beat: is called now and then while a large file is copied or read.
    """

    def __init__(
        self,
        inbox: str,
        work: str,
        targets: Mapping[str, str],
        root: str,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(inbox, work, targets, root, beat)
        self.uploads = Uploads(work, self._still_lies)

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
            make_usable(folder)

    def clear_left(self) -> None:
        """Try once more to remove what could not be removed when it was filed or claimed."""
        super().clear_left()
        self.uploads.forget_claimed()

    # -- claiming -------------------------------------------------------------------------

    def readiness(self, file: SeenFile, *, overdue: bool, is_network: bool) -> Readiness:
        """Whether a settled file may be claimed: unchanged, no local writer, looks whole.

        Args:
            file: as it was last seen.
            overdue: take it even if it does not look whole.
            is_network: the inbox lies on a share.

        Raises:
            FileTrouble: this file cannot be read.
            Unavailable: the inbox cannot be read.
        """
        try:
            with opened_below(self._inbox, file.path) as fd:
                return readiness_of(fd, file, overdue=overdue, is_network=is_network)
        except OSError as error:
            if error.errno in GONE:
                return "gone"
            checked_device(self._inbox, self._work)
            raise trouble_of("unreadable", error) from error

    def claim(self, path: str, image_id: int) -> bool:
        """Rename a file of the inbox into the work folder.

        Returns:
            False when it is not there any more.

        Raises:
            FileTrouble: this file cannot be moved; it is still in the inbox.
            ClaimUnclear: the rename failed, and it cannot be seen whether it was done all the same.
            Unavailable: inbox or work folder are out of reach; likewise unclear.
        """
        try:
            work = os.open(self._work, FOLDER)
        except OSError as error:
            what = f"The work folder {self._work} cannot be opened"
            raise unavailable("inbox", what, error) from error
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
            if not is_taken and self._is_claimed(image_id):
                return True
            if error.errno in GONE:
                return False
            self._check_work(error)
            raise trouble_of("unmovable", error) from error
        finally:
            os.close(work)
        return True

    def _is_claimed(self, image_id: int) -> bool:
        try:
            os.lstat(self.work_path(image_id))
        except FileNotFoundError:
            return False
        except OSError as error:
            self._check_work(error)
            raise ClaimUnclear(reason_of(error)) from error
        return True

    def _check_work(self, error: OSError) -> None:
        """See that a failure is of one file, and not of the inbox and its work folder.

        Raises:
            Unavailable: one of them is out of reach, or nothing can be written there.
        """
        checked_device(self._inbox, self._work)
        try:
            if error.errno not in FORBIDDEN | BUSY | {errno.EXDEV}:
                probe(self._work)
            elif not os.access(self._work, os.W_OK | os.X_OK):
                raise error
        except OSError as refused:
            what = f"The work folder {self._work} cannot be written"
            raise unavailable("inbox", what, refused) from error

    def sync_claims(self, paths: Sequence[str]) -> None:
        """Make the renames of these files out of the inbox last through a power cut.

        Raises:
            Unavailable: the share of the inbox went away.
        """
        try:
            sync_folder(self._work)
            for folder in {os.path.dirname(path) for path in paths}:
                with suppress(FileNotFoundError):  # its sender may have removed it meanwhile
                    self._sync_left(os.path.join(self._inbox, folder))
        except OSError as error:
            raise unavailable("storage", "Claims cannot be confirmed", error) from error

    def _sync_left(self, folder: str) -> None:
        """Flush a folder that files have left; if it cannot be, that costs none of them.

        All that may come of it is that a power cut just then brings a file back.
        """
        try:
            with directory(folder) as fd:
                flush(fd)
        except OSError:
            checked_device(self._inbox, self._work)

    def examine(self, image_id: int) -> Claimed | None:
        """Hash a claimed file and make sure that its bytes are on disk.

        A file with more than one name gets an inode of its own first, so that nobody who
        holds the other name can change what is filed. One that no setting takes is not read.

        Returns:
            None when it has vanished or is not a regular file.

        Raises:
            FileTrouble: it cannot be read.
            Unavailable: the work folder is out of reach.
        """
        path = self.work_path(image_id)
        try:
            seen = self.seen(image_id)
            if seen is None or seen.signature.size > LARGEST_FILE_BYTES:
                return seen
            if os.lstat(path).st_nlink > 1 or not _is_flushed(path):
                _make_sole_name(path)
            with _opened(path) as fd:
                signature = signature_of(os.fstat(fd))  # first: a writer may go on meanwhile
                return Claimed(path, sha256_of(fd, LARGEST_FILE_BYTES), signature)
        except OSError as error:
            if has_vanished(path):
                return None
            checked_device(self._inbox, self._work)
            raise trouble_of("unreadable", error) from error

    def seen(self, image_id: int) -> Claimed | None:
        """A claimed file as a look at it finds it, without a hash.

        Returns:
            None when it has vanished or is not a regular file.

        Raises:
            FileTrouble: it cannot be looked at.
            Unavailable: the work folder is out of reach.
        """
        path = self.work_path(image_id)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            if has_vanished(path):
                return None
            raise
        except OSError as error:
            checked_device(self._inbox, self._work)
            raise trouble_of("unreadable", error) from error
        if not stat.S_ISREG(status.st_mode):
            return None  # it took the file's place before the claim; it is left over
        return Claimed(path, None, signature_of(status))

    def unchanged(self, claimed: Claimed) -> bool:
        """Whether a claimed file still is as it was hashed."""
        try:
            return signature_of(os.lstat(claimed.path)) == claimed.signature
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
        """Give a file in the work folder that no row knows the name of its new row.

        Raises:
            FileTrouble: it cannot be renamed.
            Unavailable: the work folder is out of reach.
        """
        try:
            with directory(self._work) as work:
                rename_noreplace(
                    work_name(work_id),
                    work_name(image_id),
                    source_dir=work,
                    target_dir=work,
                    is_own_name=True,
                )
        except OSError as error:
            self._check_work(error)
            raise trouble_of("unmovable", error) from error

    def put_back(self, returned: Returned) -> None:
        """Hand a rejected file over once more, for another try.

        Args:
            returned: which it is, where it lies, and where in the inbox it came from.

        Raises:
            FileNotFoundError: it is not there any more.
            Unavailable: it lies where it was: the share of the inbox is away, or it cannot be
                moved.
        """
        checked_device(self._inbox, self._work)
        self.uploads.put_back(self.target_path(returned.folder, returned.filed_name), returned)
        self._forget_reason(returned.folder, returned.filed_name)

    def _still_lies(self, folder: str, name: str) -> bool:
        """Whether a rejected file lies where it lay, or may lie there."""
        try:
            return folder in self._targets and not has_vanished(self.target_path(folder, name))
        except Unavailable:
            return True

    def _forget_reason(self, folder: str, name: str) -> None:
        """Remove `NAME.json` of a file that was put back: it stands in the ledger and the log.

        Raises:
            Unavailable: it cannot be removed.
        """
        try:
            remove(self.target_path(folder, name) + ".json")
        except OSError as error:
            what = "It is put back, but the reason beside it cannot be removed"
            raise unavailable("storage", what, error) from error


def _is_flushed(path: str) -> bool:
    """Flush a sender's bytes to disk: once filed we answer for them, also after a power cut.

    Returns:
        False when the disk did not confirm. Linux then takes the pages for clean, so that only
        what is written anew can still be confirmed.
    """
    with _opened(path) as fd:
        try:
            flush(fd)
        except OSError:
            return False
    return True


@contextmanager
def _opened(path: str) -> Iterator[int]:
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
