"""Takes up what an earlier run left open, by the table of states in `ledger/ledger.py`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

import structlog

from xray_watcher.core.times import local_day, to_us
from xray_watcher.in_hand import Decided
from xray_watcher.intake import doors
from xray_watcher.intake.claims import FileTrouble, Move
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.work_names import id_of
from xray_watcher.ledger.ledger import Ledger, NewClaim
from xray_watcher.ledger.rows import ImageRow
from xray_watcher.ledger.states import State

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """What there is to do.

    Attributes:
        claimed: images to be decoded; those that had the most tries come last.
        decided: what is to be carried out.
    """

    claimed: tuple[ImageRow, ...]
    decided: tuple[Decided, ...]


def take_up(ledger: Ledger, spool: Spool, now: datetime, zone: tzinfo | None) -> LeftOpen:
    """Bring ledger and work folder together; costs as much as there are open images.

    Raises:
        Unavailable: the work folder or the ledger is out of reach; call it again later.
    """
    rows = ledger.open_rows()
    in_work = spool.claimed_ids()
    claimed = _claims(ledger, spool, [row for row in rows if row.state != State.FILING], in_work)
    unknown = sorted(in_work.difference(row.id for row in rows))
    left = [left_id for left_id in map(id_of, spool.leftovers()) if left_id is not None]
    if unknown or left:  # the ledger is, or may be, an older copy
        ledger.reserve_ids(max(*unknown, *left, 0))
    adopted = [_taken_in(ledger, spool, work_id, now, zone) for work_id in unknown]
    decided = tuple(_decided_before(ledger, row) for row in rows if row.state == State.FILING)
    if rows:
        _log.info("recovering", images=len(rows))
    return LeftOpen((*claimed, *(row for row in adopted if row is not None)), decided)


def _claims(
    ledger: Ledger, spool: Spool, rows: Sequence[ImageRow], in_work: set[int]
) -> list[ImageRow]:
    """The claimed images, those first that had the fewest tries: a poisonous one comes last.

    A claim that was not made is forgotten, for its file is seen anew. One whose file lies neither
    in the work folder nor where it came from was made, and its image is recorded as missing.
    """
    forgotten = {row.id for row in rows if row.id not in in_work and _still_waits(spool, row)}
    ledger.drop_claims(sorted(forgotten))
    taken = [row for row in rows if row.id not in forgotten]
    doors.sync_claims(spool, [(r.inbox_path, r.upload) for r in taken if r.id in in_work])
    return sorted(taken, key=lambda row: (row.attempts, row.id))


def _still_waits(spool: Spool, row: ImageRow) -> bool:
    return row.state == State.CLAIMING and doors.still_waits(spool, row.inbox_path, row.upload)


def _decided_before(ledger: Ledger, row: ImageRow) -> Decided:
    assert row.idx is not None
    line = ledger.record_of(row.idx)
    outcome = row.outcome or "rejected"
    move = None
    if row.folder is not None and row.filed_name is not None:
        is_rejected = outcome == "rejected"
        move = Move(row.id, row.folder, row.filed_name, row.sha256, with_reason=is_rejected)
    return Decided(row.id, row.inbox_path, move, line, outcome)


def _taken_in(
    ledger: Ledger, spool: Spool, work_id: int, now: datetime, zone: tzinfo | None
) -> ImageRow | None:
    """Take in a file of the work folder that no open row knows; None when it stays there."""
    filed = ledger.filed_row(work_id)
    if filed is not None:  # a copy across file systems was complete, and this could not go
        spool.clear(work_id, filed.sha256)
        return None
    try:
        return _adopt(ledger, spool, work_id, now, zone)
    except FileTrouble as error:
        _log.error("a file in the work folder cannot be taken up", id=work_id, reason=str(error))
        return None


def _adopt(
    ledger: Ledger, spool: Spool, work_id: int, now: datetime, zone: tzinfo | None
) -> ImageRow | None:
    found = spool.seen(work_id)
    if found is None:
        return None
    claim = NewClaim(
        path=os.fsencode(f"recovered/{work_id:012d}"),
        size=found.signature.size,
        received_us=to_us(now),
        settled_us=to_us(now),
        day=local_day(now, zone),
    )
    (image_id,) = ledger.begin_claims([claim])
    try:
        spool.adopt(work_id, image_id)
    except FileTrouble:
        ledger.drop_claims([image_id])
        raise
    _log.warning("a claimed file without a row is taken up", work_id=work_id)
    return ledger.image(image_id)
