"""Claims files: a row in the ledger first, then one rename into the work folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta, tzinfo

from xray_watcher.core.retries import Reason
from xray_watcher.core.times import local_day, to_us
from xray_watcher.core.values import Arrival
from xray_watcher.errors import Unavailable
from xray_watcher.intake.claims import ClaimUnclear, FileProblem
from xray_watcher.intake.sources import upload_column
from xray_watcher.intake.spool import Spool
from xray_watcher.ledger.ledger import Ledger, NewClaim
from xray_watcher.system.clock import Clock


@dataclass(slots=True)
class Made:
    """Claims that were made, by row id; files that cannot be moved; what kept off the others."""

    claimed: dict[int, Arrival] = field(default_factory=dict)
    held: list[tuple[Arrival, Reason]] = field(default_factory=list)
    problem: Unavailable | None = None


@dataclass(frozen=True, slots=True)
class ClearedUp:
    """Failed claims: those that were taken or vanished, by id, and those to be made again."""

    taken: Mapping[int, Arrival]
    back: Sequence[Arrival]


class Claims:
    """Claims files for one daemon.

    Args:
        ledger: gets their rows.
        spool: the folders.
        clock: the time.
        zone: local time zone; None is the system's.
    """

    def __init__(self, ledger: Ledger, spool: Spool, clock: Clock, zone: tzinfo | None) -> None:
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._zone = zone
        self._unclear: dict[int, Arrival] = {}  # they failed, perhaps after the rename
        self._to_drop: list[int] = []  # rows of claims that were certainly not made
        self._back: list[Arrival] = []

    def make(self, arrivals: Sequence[Arrival]) -> Made:
        """Claim files that are settled and ready.

        Raises:
            Unavailable: the ledger or the work folder is out of reach; what became of each comes
                with `clear_up`.
        """
        try:
            ids = self._ledger.begin_claims([self._new_claim(arrival) for arrival in arrivals])
        except Unavailable:
            self._back += arrivals
            raise
        made = Made()
        for image_id, arrival in zip(ids, arrivals, strict=True):
            self._make(image_id, arrival, made)
        try:
            self._drop()
            if made.claimed:
                self._spool.sync_claims([each.origin for each in made.claimed.values()])
        except Unavailable:
            self._unclear |= made.claimed
            self._back += [arrival for arrival, _ in made.held]
            raise
        if made.problem is not None:
            self._back += [arrival for arrival, _ in made.held]
        return made

    def _make(self, image_id: int, arrival: Arrival, made: Made) -> None:
        if made.problem is not None:
            self._to_drop.append(image_id)
            self._back.append(arrival)
            return
        try:
            if self._spool.claim(arrival.origin, image_id):
                made.claimed[image_id] = arrival
            else:
                self._to_drop.append(image_id)
        except FileProblem as error:
            self._to_drop.append(image_id)
            made.held.append((arrival, error.reason))
        except ClaimUnclear:
            self._unclear[image_id] = arrival
        except Unavailable as error:
            self._unclear[image_id] = arrival
            made.problem = error

    def clear_up(self) -> ClearedUp:
        """See what has become of claims that failed, before anything else is claimed.

        A share that goes away may have done a rename whose answer never came.

        Raises:
            Unavailable: the work folder or the ledger is out of reach; call it again later.
        """
        taken = self._taken() if self._unclear else {}
        self._drop()
        back, self._back = self._back, []
        return ClearedUp(taken, back)

    def _taken(self) -> Mapping[int, Arrival]:
        in_work = self._spool.work.claimed_ids()
        taken = {}
        for image_id, arrival in self._unclear.items():
            if image_id not in in_work and self._spool.is_still_there(arrival.origin):
                self._to_drop.append(image_id)
                self._back.append(arrival)
            else:
                taken[image_id] = arrival
        self._unclear.clear()
        return taken

    def _drop(self) -> None:
        if self._to_drop:
            self._ledger.drop_claims(self._to_drop)
            self._to_drop.clear()

    def _new_claim(self, arrival: Arrival) -> NewClaim:
        now, now_s = self._clock.now(), self._clock.monotonic_s()
        received = now - timedelta(seconds=now_s - arrival.first_seen_s)
        settled = now - timedelta(seconds=now_s - arrival.settled_s)
        return NewClaim(
            path=os.fsencode(arrival.file.path),
            size=arrival.file.size,
            received_us=to_us(received),
            settled_us=to_us(settled),
            day=local_day(received, self._zone),
            upload=upload_column(arrival.origin),
            retry_of=arrival.retry_of,
        )
