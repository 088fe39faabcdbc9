"""The seam between a filing and what follows from it; the ledger imports no effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from xray_watcher.core.image_record import ImageRecord
from xray_watcher.core.notices import Notice
from xray_watcher.core.result_keys import ResultKeys
from xray_watcher.core.tally import Tally


@dataclass(frozen=True, slots=True)
class Filing:
    """Images that are filed and logged, and become done in one commit.

    Attributes:
        image_ids: their rows.
        records: what the logs hold of them, in the same order.
        filed_at: now, aware.
    """

    image_ids: Sequence[int]
    records: Sequence[ImageRecord]
    filed_at: datetime


class Commit(Protocol):
    """What an effect may add to the commit of a filing; all of it is committed, or nothing."""

    def add_to_tally(self, tally: Tally) -> None:
        """Add to the running totals."""

    def add_results(self, keys: Sequence[ResultKeys]) -> None:
        """Put images that are filed into the list of results."""

    def add_notices(self, notices: Sequence[Notice]) -> None:
        """Add notices to the outbox."""


class Effect(Protocol):
    """What follows from a filing.

    It is called within the commit and holds it up: it reads no file and asks no one. When it
    raises, nothing is committed, and the images are filed again at the next turn or start.
    """

    def __call__(self, filing: Filing, commit: Commit) -> None:
        """Add what follows from the filing to its commit."""
