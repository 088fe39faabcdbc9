"""Watches what is handed over: one listing of a folder of our own a look."""

from __future__ import annotations

from collections.abc import Sequence

from xray_watcher.core.retries import Reason, Retries
from xray_watcher.core.values import Arrival, Origin
from xray_watcher.intake.gap import Gap
from xray_watcher.intake.handover_source import HandoverSource
from xray_watcher.intake.sources import Answers
from xray_watcher.system.clock import Clock


class HandoverWatch:
    """What was handed over and is not claimed.

    Args:
        source: where it lies.
        retries: gets the files that cannot be read or moved.
        clock: the time.

    Attributes:
        give_up_after_s: after so long a file is taken without the name that its client gave it.
    """

    def __init__(self, source: HandoverSource, retries: Retries, clock: Clock) -> None:
        self._source = source
        self._retries = retries
        self._clock = clock
        self._gap = Gap()
        self.give_up_after_s = 3600.0

    def __len__(self) -> int:
        """Images that are known to be there and not claimed."""
        return len(self._source)

    @property
    def has_to_claim(self) -> bool:
        """Whether something is there that will be claimed without more ado."""
        return len(self._source) > len(self._retries.waiting(self._source.name))

    def look(self, now_s: float) -> Sequence[Arrival]:
        """The files that are new.

        Raises:
            Unavailable: the folder cannot be read.
        """
        if now_s < self._gap.next_s:
            return []
        began_s = self._clock.monotonic_s()
        where = self._source.name
        due = self._retries.due(where, now_s)
        self._source.offer_again(str(name) for _, name in due)
        for key in due:
            self._retries.begin(key)
        nameless = [
            str(key[1])
            for key, retry in self._retries.waiting(where).items()
            if now_s - retry.since_s >= self.give_up_after_s
        ]
        found = self._source.look(now_s, nameless)
        for name, reason in found.problems.items():
            self._retries.failed(Origin(where, name), name, reason, now_s)
        for key in list(self._retries.waiting(where)):
            if key[1] not in self._source.names:
                self._retries.forget(key)
        self._gap.note(now_s, self._clock.monotonic_s() - began_s, least_s=0.0)
        return found.arrivals

    def ask(self, arrivals: Sequence[Arrival], now_s: float) -> Answers:  # noqa: ARG002
        """All may be claimed: they are whole."""
        return Answers(arrivals)

    def hold(self, arrival: Arrival, reason: Reason, now_s: float) -> None:
        """Leave a file alone until its next try; it is never rejected unread."""
        self._retries.failed(arrival.origin, arrival.file.path, reason, now_s)

    def note_claimed(self, arrival: Arrival) -> None:
        """Follow a file no more that has been claimed."""
        self._retries.forget(arrival.origin)
