"""The inbox as a source: files that others put into a shared folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress

from xray_watcher.core.values import INBOX, SeenFile
from xray_watcher.intake.nofollow import FOLDER, open_nofollow, open_parent
from xray_watcher.intake.readiness import Readiness, check_readiness
from xray_watcher.intake.refusals import GONE, file_problem, unavailable
from xray_watcher.intake.work_folder import WorkFolder
from xray_watcher.intake.work_names import work_name
from xray_watcher.system.files import directory, flush, rename_noreplace


class InboxSource:
    """The inbox; a file is known there by its path below it.

    Args:
        inbox: the shared folder.
        work: the work folder, on the same file system.
    """

    name = INBOX

    def __init__(self, inbox: str, work: WorkFolder) -> None:
        self.folder = inbox
        self._work = work

    def readiness(self, file: SeenFile, *, overdue: bool, is_network: bool) -> Readiness:
        """Whether a settled file may be claimed: unchanged, no local writer, looks whole.

        Args:
            file: as it was last seen.
            overdue: take it even if it does not look whole.
            is_network: the inbox lies on a share.

        Raises:
            FileProblem: this file cannot be read.
            Unavailable: the inbox cannot be read.
        """
        try:
            with open_nofollow(self.folder, file.path) as fd:
                return check_readiness(fd, file, overdue=overdue, is_network=is_network)
        except OSError as error:
            if error.errno in GONE:
                return "gone"
            self._work.check_reach()
            raise file_problem("unreadable", error) from error

    def claim(self, key: str, image_id: int) -> bool:
        """Rename a file into the work folder; see `Source`."""
        try:
            work = os.open(self._work.path, FOLDER)
        except OSError as error:
            what = f"The work folder {self._work.path} cannot be opened"
            raise unavailable("inbox", what, error) from error
        try:
            with open_parent(self.folder, key) as parent:
                name = os.path.basename(key)
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
            if not is_taken and self._work.is_claimed(image_id):
                return True
            if error.errno in GONE:
                return False
            self._work.check_writable(error)
            raise file_problem("unmovable", error) from error
        finally:
            os.close(work)
        return True

    def is_still_there(self, key: str) -> bool:
        """Whether something lies at a path below the inbox."""
        return os.path.lexists(os.path.join(self.folder, key))

    def sync(self, keys: Sequence[str]) -> None:
        """Flush the folders that files have left; see `Source`."""
        try:
            for folder in {os.path.dirname(path) for path in keys}:
                with suppress(FileNotFoundError):  # its sender may have removed it meanwhile
                    self._sync_left(os.path.join(self.folder, folder))
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
            self._work.check_reach()
