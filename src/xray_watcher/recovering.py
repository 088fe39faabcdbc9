"""Takes up what an earlier run left open, by the table of states in `ledger/ledger.py`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

import structlog

from xray_watcher.core.times import local_day, to_us
from xray_watcher.intake import doors
from xray_watcher.intake.claims import Move
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.work_names import id_of
from xray_watcher.ledger.ledger import Ledger, NewClaim
from xray_watcher.ledger.reader import ImageRow, LogLine

_OPEN = ("CLAIMING", "CLAIMED", "FILING")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Decided:
    """A committed decision that has to be carried out; `move` is None for a vanished file."""

    image_id: int
    move: Move | None
    line: LogLine
    outcome: str


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """What there is to do.

    Attributes:
        claimed: ids of images to be decoded; those that had the most tries come last.
        decided: what is to be carried out.
    """

    claimed: tuple[int, ...]
    decided: tuple[Decided, ...]


def take_up(ledger: Ledger, spool: Spool, now: datetime, zone: tzinfo | None) -> LeftOpen:
    """Bring ledger and work folder together; costs as much as there are open images.

    Raises:
        Unavailable: the work folder or the ledger is out of reach; call it again later.
    """
    rows = ledger.open_rows()
    in_work = spool.claimed_ids()
    by_state = {state: [row for row in rows if row.state == state] for state in _OPEN}
    claimed = _claims(ledger, spool, by_state["CLAIMING"], by_state["CLAIMED"], in_work)
    unknown = sorted(in_work.difference(row.id for row in rows))
    left = [left_id for left_id in map(id_of, spool.leftovers()) if left_id is not None]
    if unknown or left:  # the ledger is, or may be, an older copy
        ledger.reserve_ids(max(*unknown, *left, 0))
    adopted = [_adopt(ledger, spool, work_id, now, zone) for work_id in unknown]
    decided = tuple(_decided_before(ledger, row) for row in by_state["FILING"])
    if rows:
        _log.info("recovering", images=len(rows))
    return LeftOpen((*claimed, *adopted), decided)


def _claims(
    ledger: Ledger,
    spool: Spool,
    claiming: Sequence[ImageRow],
    claimed: Sequence[ImageRow],
    in_work: set[int],
) -> list[int]:
    """The claimed images, those first that had the fewest tries: a poisonous one comes last."""
    arrived = [row for row in claiming if row.id in in_work]
    _drop(ledger, spool, [row for row in claiming if row.id not in in_work])
    doors.sync_claims(spool, [(row.inbox_path, row.upload) for row in arrived])
    ledger.mark_claimed([row.id for row in arrived])
    again = sorted([*arrived, *claimed], key=lambda row: (row.attempts, row.id))
    return [row.id for row in again]


def _drop(ledger: Ledger, spool: Spool, claims: Sequence[ImageRow]) -> None:
    """Forget claims that were not made; a file that is still there is seen anew."""
    gone = [row for row in claims if not doors.still_waits(spool, row.inbox_path, row.upload)]
    if gone:
        _log.warning("files of open claims are gone", images=len(gone))
    ledger.drop_claims([row.id for row in claims])


def _decided_before(ledger: Ledger, row: ImageRow) -> Decided:
    assert row.idx is not None
    line = ledger.record_of(row.idx)
    outcome = row.outcome or "rejected"
    if row.folder is None or row.filed_name is None or row.sha256 is None:
        return Decided(row.id, None, line, outcome)
    is_rejected = outcome == "rejected"
    move = Move(row.id, row.folder, row.filed_name, row.sha256, with_reason=is_rejected)
    return Decided(row.id, move, line, outcome)


def _adopt(ledger: Ledger, spool: Spool, work_id: int, now: datetime, zone: tzinfo | None) -> int:
    """Take in a file of the work folder that no row knows."""
    claim = NewClaim(
        path=os.fsencode(f"recovered/{work_id:012d}"),
        size=os.path.getsize(spool.work_path(work_id)),
        received_us=to_us(now),
        settled_us=to_us(now),
        day=local_day(now, zone),
    )
    (image_id,) = ledger.begin_claims([claim])
    spool.adopt(work_id, image_id)
    ledger.mark_claimed([image_id])
    _log.warning("a claimed file without a row is taken up", work_id=work_id)
    return image_id
