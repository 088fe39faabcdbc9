"""What has come to any source and is not claimed; the daemon takes its batches from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xray_watcher.core.batching import Batching
from xray_watcher.core.retries import Reason
from xray_watcher.core.values import HANDOVER, INBOX, Arrival, Origin
from xray_watcher.errors import Unavailable
from xray_watcher.intake.handover_watch import HandoverWatch
from xray_watcher.intake.inbox_watch import InboxWatch


class Arrivals:
    """What has come and is not claimed, for one daemon.

    Args:
        inbox: follows the files of the inbox.
        handover: follows what is handed over.
        batching: when a batch is ready.
    """

    def __init__(self, inbox: InboxWatch, handover: HandoverWatch, batching: Batching) -> None:
        self.inbox = inbox
        self._handover = handover
        self._batching = batching
        self._watches: dict[str, InboxWatch | HandoverWatch] = {INBOX: inbox, HANDOVER: handover}

    def __len__(self) -> int:
        """Images that are known to be there and not claimed."""
        return sum(len(watch) for watch in self._watches.values())

    @property
    def has_to_claim(self) -> bool:
        """Whether something is there that will be claimed without more ado."""
        watches = self._watches.values()
        return len(self._batching) > 0 or any(watch.has_to_claim for watch in watches)

    def give_up_after(self, seconds: float) -> None:
        """Take files as they are after so long, though something fails over them."""
        for watch in self._watches.values():
            watch.give_up_after_s = seconds

    def look_at_handover(self, now_s: float) -> None:
        """Look for what was handed over.

        Raises:
            Unavailable: its folder cannot be read.
        """
        self._batching.add(self._handover.look(now_s), now_s)

    def gather(self, now_s: float) -> list[Arrival]:
        """The next batch of files that may be claimed now, or nothing.

        Raises:
            Unavailable: a source is out of reach; they are asked for again.
        """
        self._batching.add(self.inbox.settled(now_s), now_s)
        batch = self._batching.take(now_s)
        try:
            ready = self._ready(batch, now_s)
        except Unavailable:
            self._batching.put_back(batch)
            raise
        return [ready[each.origin] for each in batch if each.origin in ready]

    def _ready(self, batch: Sequence[Arrival], now_s: float) -> dict[Origin, Arrival]:
        ready: dict[Origin, Arrival] = {}
        for source, watch in self._watches.items():
            arrivals = [each for each in batch if each.origin.source == source]
            if arrivals:
                answers = watch.ask(arrivals, now_s)
                self._batching.put_back(answers.unasked)
                ready |= {each.origin: each for each in answers.ready}
        return ready

    def hold(self, arrival: Arrival, reason: Reason, now_s: float) -> Arrival | None:
        """Leave a file alone until its next try.

        Returns:
            The file, to be claimed and rejected unread, when that has lasted too long.
        """
        return self._watches[arrival.origin.source].hold(arrival, reason, now_s)

    def note_claimed(self, arrivals: Sequence[Arrival]) -> None:
        """Follow files no more that have been claimed."""
        for arrival in arrivals:
            self._watches[arrival.origin.source].note_claimed(arrival)

    def put_back(self, arrivals: Sequence[Arrival]) -> None:
        """Ask once more for files that could not be claimed, before all others.

        One that was to be rejected unread may be readable by now.
        """
        self._batching.put_back([replace(arrival, given_up=None) for arrival in arrivals])

    def next_batch_s(self) -> float | None:
        """When the next batch is ready if nothing more comes; None when nothing waits."""
        return self._batching.next_due_s()

    @property
    def is_pressed(self) -> bool:
        """Whether somebody waits for what is next."""
        return self._batching.is_pressed
