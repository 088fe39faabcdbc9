"""Where files wait until they are claimed: one protocol for every source.

A claim is the same everywhere: first a row in the ledger, then one rename into the work folder.
The origin of a file says at which source it waits, in an arrival and in a row of the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from xray_watcher.core.values import HANDOVER, INBOX, Arrival, Origin
from xray_watcher.ledger.rows import ImageRow


class Source(Protocol):
    """Where files wait until they are claimed.

    Attributes:
        name: of the source, as it stands in an `Origin`.
    """

    name: str

    def claim(self, key: str, image_id: int) -> bool:
        """Rename a file into the work folder.

        Args:
            key: what the file is known by here.
            image_id: its row in the ledger.

        Returns:
            False when it is not there any more.

        Raises:
            FileProblem: this file cannot be moved; it is still where it was.
            ClaimUnclear: the rename failed, and it cannot be seen whether it was done all the same.
            Unavailable: the source or the work folder is out of reach; likewise unclear.
        """
        ...

    def is_still_there(self, key: str) -> bool:
        """Whether a file that was not claimed lies where it waited."""
        ...

    def sync(self, keys: Sequence[str]) -> None:
        """Make the renames of these files out of here last through a power cut.

        Raises:
            Unavailable: the source is out of reach.
        """
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """Which of the asked files may be claimed, and which are to be asked again."""

    ready: Sequence[Arrival]
    unasked: Sequence[Arrival] = ()


def row_origin(row: ImageRow) -> Origin:
    """Where the file of a row waited before it was claimed."""
    if row.upload is not None:
        return Origin(HANDOVER, row.upload)
    return Origin(INBOX, row.inbox_path)


def upload_column(origin: Origin) -> str | None:
    """What stands in the column `upload` of a row, for a file from there."""
    return origin.key if origin.source == HANDOVER else None
