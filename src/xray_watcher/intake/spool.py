"""The folders that images pass through, put together: sources, work folder, results.

Nothing is ever overwritten and nothing of a sender's is ever deleted. Every step can be done again
after a kill: what is already done is found done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from xray_watcher.core.values import Origin
from xray_watcher.intake.filing import ResultFolders, make_usable
from xray_watcher.intake.handover_source import HandoverSource
from xray_watcher.intake.inbox_source import InboxSource
from xray_watcher.intake.returned import Returned
from xray_watcher.intake.sources import Source
from xray_watcher.intake.work_folder import WorkFolder


class Spool:
    """All folders of one daemon.

    Args:
        inbox: the shared folder.
        work: the work folder, on the inbox's file system.
        targets: path of each folder that images are filed in, by its key.
        root: paths below it are shown relative to it.
        beat: is called now and then while a large file is copied or read.

    Attributes:
        work: the claimed files.
        results: the folders that images are filed in.
        inbox: the files that others put into the inbox.
        handover: the files that our own programs hand over.
    """

    def __init__(
        self,
        inbox: str,
        work: str,
        targets: Mapping[str, str],
        root: str,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.work = WorkFolder(inbox, work)
        self.results = ResultFolders(self.work, targets, root, beat)
        self.inbox = InboxSource(inbox, self.work)
        self.handover = HandoverSource(self.work, self.results.may_lie)
        sources: tuple[Source, ...] = (self.inbox, self.handover)
        self._sources = {source.name: source for source in sources}

    def make_inbox(self) -> None:
        """Make inbox and work folder where they are missing, as at the very first start.

        Raises:
            Unavailable: a folder cannot be made or written; the message names it.
        """
        for folder in (self.inbox.folder, self.work.path):
            make_usable(folder)

    def clear_left(self) -> None:
        """Try once more to remove what could not be removed when it was filed or claimed."""
        self.results.clear_left()
        self.handover.forget_claimed()

    def claim(self, origin: Origin, image_id: int) -> bool:
        """Rename a file into the work folder; see `Source.claim`."""
        return self._sources[origin.source].claim(origin.key, image_id)

    def is_still_there(self, origin: Origin) -> bool:
        """Whether a file that was not claimed lies where it waited."""
        return self._sources[origin.source].is_still_there(origin.key)

    def sync_claims(self, origins: Collection[Origin]) -> None:
        """Make claims last through a power cut.

        Args:
            origins: of the files that were claimed.

        Raises:
            Unavailable: a folder went away.
        """
        self.work.sync()
        for name in {origin.source for origin in origins}:
            self._sources[name].sync([each.key for each in origins if each.source == name])

    def put_back(self, returned: Returned) -> None:
        """Hand a rejected file over once more, for another try.

        Args:
            returned: which it is, where it lies, and where in the inbox it came from.

        Raises:
            FileNotFoundError: it is not there any more.
            Unavailable: it lies where it was: the share of the inbox is away, or it cannot be
                moved.
        """
        self.work.check_reach()
        lies_at = self.results.target_path(returned.folder, returned.filed_name)
        self.handover.put_back(lies_at, returned)
        self.results.forget_reason(returned.folder, returned.filed_name)
