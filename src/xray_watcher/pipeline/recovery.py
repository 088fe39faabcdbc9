"""Takes up what an earlier run left open, by the table of states in `ledger/ledger.py`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

import structlog

from xray_watcher.core.times import local_day, to_us
from xray_watcher.intake.claims import FileProblem, Move
from xray_watcher.intake.sources import row_origin
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.work_names import parse_work_name
from xray_watcher.ledger.ledger import Ledger, NewClaim
from xray_watcher.ledger.rows import ImageRow
from xray_watcher.ledger.states import State
from xray_watcher.pipeline.images_in_hand import Decided
from xray_watcher.system.clock import Clock

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """Images to be decoded, those with the most tries last, and decisions to be carried out."""

    claimed: tuple[ImageRow, ...]
    decided: tuple[Decided, ...]


class Recovery:
    """Brings ledger and work folder together at a start.

    Args:
        ledger: knows which images are open.
        spool: the folders.
        clock: the time.
        zone: local time zone; None is the system's.
    """

    def __init__(self, ledger: Ledger, spool: Spool, clock: Clock, zone: tzinfo | None) -> None:
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._zone = zone

    def take_up(self) -> LeftOpen:
        """Take up what is open; costs as much as there are open images.

        Raises:
            Unavailable: the work folder or the ledger is out of reach; call it again later.
        """
        rows = self._ledger.open_rows()
        in_work = self._spool.work.claimed_ids()
        claimed = self._claims([row for row in rows if row.state != State.FILING], in_work)
        unknown = sorted(in_work.difference(row.id for row in rows))
        leftovers = map(parse_work_name, self._spool.work.leftovers())
        left = [left_id for left_id in leftovers if left_id is not None]
        if unknown or left:  # the ledger is, or may be, an older copy
            self._ledger.reserve_ids(max(*unknown, *left, 0))
        adopted = [self._take_in_file(work_id) for work_id in unknown]
        decided = tuple(self._load_decided(row) for row in rows if row.state == State.FILING)
        if rows:
            _log.info("recovering", code="recovering", images=len(rows))
        return LeftOpen((*claimed, *(row for row in adopted if row is not None)), decided)

    def _claims(self, rows: Sequence[ImageRow], in_work: set[int]) -> list[ImageRow]:
        """The claimed images, those first that had the fewest tries: a poisonous one comes last.

        A claim that was not made is forgotten, for its file is seen anew. One whose file lies
        neither in the work folder nor where it came from was made, and its image is recorded as
        missing.
        """
        forgotten = {row.id for row in rows if row.id not in in_work and self._still_waits(row)}
        self._ledger.drop_claims(sorted(forgotten))
        taken = [row for row in rows if row.id not in forgotten]
        self._spool.sync_claims([row_origin(row) for row in taken if row.id in in_work])
        return sorted(taken, key=lambda row: (row.attempts, row.id))

    def _still_waits(self, row: ImageRow) -> bool:
        return row.state == State.CLAIMING and self._spool.is_still_there(row_origin(row))

    def _load_decided(self, row: ImageRow) -> Decided:
        assert row.idx is not None
        line = self._ledger.record_of(row.idx)
        outcome = row.outcome or "rejected"
        move = None
        if row.folder is not None and row.filed_name is not None:
            is_rejected = outcome == "rejected"
            move = Move(row.id, row.folder, row.filed_name, row.sha256, with_reason=is_rejected)
        return Decided(row.id, row.inbox_path, move, line, outcome)

    def _take_in_file(self, work_id: int) -> ImageRow | None:
        """Take in a file of the work folder that no open row knows; None when it stays there."""
        filed = self._ledger.filed_row(work_id)
        if filed is not None:  # a copy across file systems was complete, and this could not go
            self._spool.work.clear(work_id, filed.sha256)
            return None
        try:
            return self._adopt(work_id)
        except FileProblem as error:
            reason = str(error)
            _log.error(
                "a file in the work folder cannot be taken up",
                code="work_file_not_taken",
                id=work_id,
                reason=reason,
            )
            return None

    def _adopt(self, work_id: int) -> ImageRow | None:
        found = self._spool.work.seen(work_id)
        if found is None:
            return None
        now = self._clock.now()
        claim = NewClaim(
            path=os.fsencode(f"recovered/{work_id:012d}"),
            size=found.signature.size,
            received_us=to_us(now),
            settled_us=to_us(now),
            day=local_day(now, self._zone),
        )
        (image_id,) = self._ledger.begin_claims([claim])
        try:
            self._spool.work.adopt(work_id, image_id)
        except FileProblem:
            self._ledger.drop_claims([image_id])
            raise
        _log.warning(
            "a claimed file without a row is taken up", code="work_file_taken", work_id=work_id
        )
        return self._ledger.image(image_id)
