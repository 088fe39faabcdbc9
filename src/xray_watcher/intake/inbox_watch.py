"""Watches the inbox: looks, settles, asks whether a file is ready.

Whatever fails over one file is noted in the table of retries; the others come on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial

from xray_watcher.core.retries import GIVEN_UP, Reason, Retries, given_up
from xray_watcher.core.settling import Settling
from xray_watcher.core.values import INBOX, Arrival
from xray_watcher.errors import Unavailable
from xray_watcher.intake.claims import FileProblem
from xray_watcher.intake.gap import Gap
from xray_watcher.intake.inbox_source import InboxSource
from xray_watcher.intake.readiness import Readiness
from xray_watcher.intake.sources import Answers
from xray_watcher.intake.watcher import Inbox, NoWakeup, Scan, Wakeup
from xray_watcher.system.clock import Clock
from xray_watcher.system.hands import Hands
from xray_watcher.system.lock import InboxLock

_SLICE_S = 0.5  # so long a look goes on before the images have their turn again
_SLICE_ENTRIES = 64

_ANSWER_S = 2.0  # a file that does not answer for so long is left alone
_PATIENCE_S = 0.25
_SLOW = Reason("slow", "It does not answer.")
_BUSY = Reason("busy", "Another program has it open for writing.")


@dataclass(slots=True)
class _Asked:
    """Settled files that are asked, one after the other, whether they are ready."""

    arrivals: Sequence[Arrival]
    answers: list[Readiness | Reason] = field(default_factory=list)


class InboxWatch:
    """What has come into the inbox and is not claimed.

    Args:
        inbox: looked at.
        wakeup: makes looks come sooner.
        lock: keeps other daemons off the inbox; taken when the inbox is in reach.
        source: asked whether a settled file may be claimed.
        settling: which files are complete.
        retries: gets the files that cannot be read or moved.
        hands: reads files, which may never answer.
        clock: the time.
        beat: is called at progress.

    Attributes:
        scan_s: seconds between looks at the inbox when nothing else calls for one.
        settle_s: of a local inbox, and of one on a share.
        give_up_after_s: after so long a file that cannot be read is claimed and rejected.
        ignored: entries that are left alone, as the last look found them.
        barred: folders and files that may not be read, with the reason.
    """

    def __init__(  # noqa: PLR0913 - assembly hands over each part by name
        self,
        *,
        inbox: Inbox,
        wakeup: Wakeup | NoWakeup,
        lock: InboxLock,
        source: InboxSource,
        settling: Settling,
        retries: Retries,
        hands: Hands,
        clock: Clock,
        beat: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._wakeup = wakeup
        self._lock = lock
        self._source = source
        self._settling = settling
        self._retries = retries
        self._hands = hands
        self._clock = clock
        self._beat = beat
        self._is_network = False
        self._gap = Gap()
        self._look: Iterator[Scan | None] | None = None  # that is under way
        self._began_s = self._took_s = 0.0
        self._is_scan_wanted = True
        self._unanswered: dict[str, Future[None]] = {}  # by path: files that hang
        self.scan_s = 5.0
        self.settle_s = (2.0, 30.0)
        self.give_up_after_s = 3600.0
        self.ignored = 0
        self.barred: Mapping[str, str] = {}

    def __len__(self) -> int:
        """Images that are known to be there and not claimed."""
        return len(self._settling)

    @property
    def has_to_claim(self) -> bool:
        """Whether something is there that will be claimed without more ado."""
        held = self._settling.unfinished + self._settling.held
        return self._look is not None or self._settling.waiting > held

    # -- looks ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Look soon: something has happened."""
        self._is_scan_wanted = True

    def close(self) -> None:
        """Wake up no more."""
        self._wakeup.close()

    def look(self, now_s: float, *, is_late: bool) -> None:
        """Look at the inbox when that is due; a long look goes on at the next turn.

        Args:
            now_s: on the monotonic clock.
            is_late: the last look failed: do not wait until one is due.

        Raises:
            Unavailable: the inbox cannot be read.
        """
        if self._look is None:
            if now_s < self.next_scan_s and not is_late:
                return
            self._is_scan_wanted = False
            self._look, self._began_s, self._took_s = self._inbox.begin_scan(), now_s, 0.0
            self._settling.begin_scan()
        began_s = self._clock.monotonic_s()
        try:
            found = self._scanned(self._look, began_s + _SLICE_S)
        except Unavailable:
            self._look = None
            self._gap.note(now_s, 0.0)
            self._lock.release()
            raise
        self._took_s += self._clock.monotonic_s() - began_s
        if found is not None:
            self._look = None
            self._take_in(found, now_s)

    def _scanned(self, look: Iterator[Scan | None], until_s: float) -> Scan | None:
        for number, found in enumerate(look, start=1):
            if found is not None:
                return found
            if number % _SLICE_ENTRIES == 0:
                self._beat()
                if self._clock.monotonic_s() >= until_s:
                    return None
        return None

    def _take_in(self, look: Scan, now_s: float) -> None:
        self._lock.take()  # on what is known to be the inbox: it writes a note there
        self._wakeup.keep_alive()
        self.ignored, self.barred, self._is_network = look.ignored, look.barred, look.is_network
        self._settling.settle_s = self.settle_s[look.is_network]
        self._settling.observe(look.files, now_s)
        for key in list(self._retries.waiting(INBOX)):
            if not self._settling.was_held(str(key[1])):  # it has changed or is gone
                self._retries.forget(key)
        self._gap.note(self._began_s, self._took_s)

    @property
    def next_scan_s(self) -> float:
        """When to look at the inbox."""
        if self._look is not None:
            return float("-inf")
        if self._is_scan_wanted:
            wanted_s = self._gap.last_s
        else:
            settles_s = self._settling.next_due_s()
            regular_s = self._gap.last_s + self.scan_s
            wanted_s = regular_s if settles_s is None else min(settles_s, regular_s)
        return max(wanted_s, self._gap.next_s)

    # -- what may be claimed --------------------------------------------------------------

    def settled(self, now_s: float) -> Sequence[Arrival]:
        """Files that are complete; each is handed on once."""
        return self._settling.due(now_s)

    def ask(self, arrivals: Sequence[Arrival], now_s: float) -> Answers:
        """Ask settled files whether they may be claimed now.

        Raises:
            Unavailable: the inbox is out of reach.
        """
        hanging = [arrival for arrival in arrivals if self._hangs(arrival)]
        to_ask = [arrival for arrival in arrivals if arrival not in hanging]
        answers = self._ask_all(to_ask, now_s) if to_ask else Answers(())
        held = [self.hold(arrival, _SLOW, now_s) for arrival in hanging]
        given_up = [each for each in held if each is not None]
        return replace(answers, ready=[*answers.ready, *given_up])

    def _hangs(self, arrival: Arrival) -> bool:
        """Whether a file has not answered yet since it was last asked."""
        answer = self._unanswered.get(arrival.file.path)
        if answer is None or answer.done():
            self._unanswered.pop(arrival.file.path, None)
            return False
        return True

    def _ask_all(self, arrivals: Sequence[Arrival], now_s: float) -> Answers:
        """Ask files whether they may be claimed; those that may not go on being watched.

        They are asked in another thread. The first that does not answer is left alone with that
        thread; those behind it come again.
        """
        asked = _Asked(arrivals)
        future = self._hands.submit(partial(self._ask, asked))
        waited_s, answered = 0.0, 0
        while not future.done() and waited_s < _ANSWER_S:
            wait([future], _PATIENCE_S)
            waited_s = 0.0 if len(asked.answers) > answered else waited_s + _PATIENCE_S
            answered = len(asked.answers)
        if future.done() and (error := future.exception()) is not None:
            raise error
        answers = list(asked.answers)  # the thread may go on meanwhile
        unasked = arrivals[len(answers) + 1 :]
        if len(answers) < len(arrivals):
            self._unanswered[arrivals[len(answers)].file.path] = future
            answers.append(_SLOW)
        pairs = zip(arrivals, answers, strict=False)
        sorted_out = [self._sort_out(arrival, answer, now_s) for arrival, answer in pairs]
        return Answers([each for each in sorted_out if each is not None], unasked)

    def _ask(self, asked: _Asked) -> None:
        for arrival in asked.arrivals:
            try:
                asked.answers.append(
                    self._source.readiness(
                        arrival.file, overdue=arrival.overdue, is_network=self._is_network
                    )
                )
            except FileProblem as error:
                asked.answers.append(error.reason)

    def _sort_out(
        self, arrival: Arrival, answer: Readiness | Reason, now_s: float
    ) -> Arrival | None:
        path = arrival.file.path
        if answer == "ready":
            return arrival
        if answer == "unfinished":
            self._settling.hold_unfinished(path)
        elif answer == "gone":
            self._settling.forget(path)
        elif answer == "changed":
            self._settling.postpone(path, now_s)
        else:
            reason = answer if isinstance(answer, Reason) else _BUSY
            return self.hold(arrival, reason, now_s)
        self._retries.forget(arrival.origin)
        return None

    def hold(self, arrival: Arrival, reason: Reason, now_s: float) -> Arrival | None:
        """Leave a file alone until its next try.

        Returns:
            The file, to be claimed and rejected unread, when that has lasted too long.
        """
        retry = self._retries.failed(arrival.origin, arrival.file.path, reason, now_s)
        is_over = now_s - retry.since_s >= self.give_up_after_s
        if is_over and reason.code in GIVEN_UP and reason != _BUSY and not arrival.given_up:
            return replace(arrival, given_up=given_up(retry, now_s))
        self._settling.hold(arrival.file.path, retry.due_s, now_s)
        return None

    def note_claimed(self, arrival: Arrival) -> None:
        """Follow a file no more that has been claimed."""
        self._settling.forget(arrival.file.path)
        self._retries.forget(arrival.origin)
