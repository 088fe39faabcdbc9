"""The daemon's part of notifying: it makes messages, hands them over and notes the outcomes.

All of it happens in the daemon's own thread and between its turns, and none of it waits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

import structlog

from xray_watcher.core.notices import (
    LONGEST_WAIT_S,
    MINUTE_US,
    Notice,
    ProblemWatch,
    Subscriptions,
    next_message_us,
    wait_s,
)
from xray_watcher.core.times import to_us
from xray_watcher.errors import Unavailable
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.outbox import DeliveryOutcome, Message, Outbox, in_vain, new_id
from xray_watcher.notify.sender import Attempt, Sender
from xray_watcher.notify.texts import MOST_ITEMS, load_item, render_body
from xray_watcher.system.clock import Clock

REPORTED = "notify_told"
"""The fact in the ledger that says which problems are reported."""

_STOP_S = 1.0
_LONGEST_NAP_S = 5.0  # problems wake nobody, and clocks may be set
_CONCERNING = 3  # failed attempts
_US = 1_000_000

_log = structlog.get_logger()


class Notifier:
    """Sends the notices that the ledger holds.

    Args:
        ledger: with the outbox.
        sender: the threads that deliver.
        subscriptions: the events of each channel.
        channels: their names.
        problems: returns the reason of each problem by its component.
        clock: the time.
        per_minute: messages for each channel and event.
        degraded_after_s: a problem is reported after it has lasted so long.
        give_up_after_s: a message that is not taken for so long is given up.
        include_names: whether messages name files and folders.
    """

    component = "notify"

    def __init__(  # noqa: PLR0913 - the composition root hands over each part by name
        self,
        *,
        ledger: Ledger,
        sender: Sender,
        subscriptions: Subscriptions,
        channels: Collection[str],
        problems: Callable[[], Mapping[str, str]],
        clock: Clock,
        per_minute: int,
        degraded_after_s: float,
        give_up_after_s: float,
        include_names: bool,
    ) -> None:
        self._ledger = ledger
        self._outbox = Outbox(ledger)
        self._sender = sender
        self._subscriptions = subscriptions
        self._problems = problems
        self._clock = clock
        self._per_minute = per_minute
        self._give_up_after_us = int(give_up_after_s * _US)
        self._include_names = include_names
        self._watch = ProblemWatch(degraded_after_s, json.loads(ledger.meta(REPORTED) or "[]"))
        self._sent_unsaved: set[tuple[str, str]] = set()  # channel and component
        self._in_flight: set[str] = set()
        self._results: list[Attempt] = []
        self._waiting: list[Message] = []
        self._seen_notices = -1
        self._next_s = float("-inf")
        dropped = self._outbox.forget_others(channels)
        if dropped:
            _log.warning("messages for channels that are not set up are dropped",
                         code="notices_dropped", count=dropped)  # fmt: skip

    @property
    def problems(self) -> dict[str, str]:
        """Channels that do not take their messages, for `status`: component and reason."""
        return {
            f"notify-{_kind(channel)}": f"{channel} has not taken a message in {message.attempts} "
            f"attempts: {message.error}."
            for channel, message in in_vain(self._waiting).items()
            if message.attempts >= _CONCERNING
        }

    @property
    def next_due_s(self) -> float:
        """When there is something to do; at once when something has happened."""
        has_news = self._seen_notices != self._ledger.notices_added
        return float("-inf") if has_news or self._sender.has_results else self._next_s

    def refresh(self, now_s: float) -> None:
        """Make and hand over the messages that are due.

        Raises:
            Unavailable: the ledger cannot be written; nothing is lost.
        """
        now_us = to_us(self._clock.now())
        self._report_problems(now_s, now_us)
        self._note_results(now_us)
        self._seen_notices = self._ledger.notices_added
        self._waiting = self._outbox.waiting()
        due_us = [self._make(channel, event, now_us) for channel, event in self._outbox.gathered()]
        due_us += self._hand_over(now_us)
        naps_s = [(due - now_us) / _US for due in due_us]
        self._next_s = min(
            now_s + min([_LONGEST_NAP_S, *naps_s]), max(self._watch.next_due_s, now_s + 1)
        )

    def stop(self) -> None:
        """Wait a moment for the attempts under way, and note their outcomes."""
        self._sender.stop(_STOP_S)
        with suppress(Unavailable):
            self._note_results(to_us(self._clock.now()))

    # -- problems -------------------------------------------------------------------------

    def _report_problems(self, now_s: float, now_us: int) -> None:
        problems = dict(self._problems())
        problems.pop(self.component, None)
        degraded, recovered = self._watch.update(problems, now_s)
        self._sent_unsaved = {sent for sent in self._sent_unsaved
                              if self._watch.is_lasting(sent[1])}  # fmt: skip
        if not (degraded or recovered):
            return
        notices = [
            notice
            for event, components in (("degraded", degraded), ("recovered", recovered))
            for component in components
            for notice in self._notices(event, component, problems.get(component), now_us)
        ]
        reported = sorted(self._watch.reported_after(degraded, recovered))
        try:
            with self._ledger.transaction():
                self._ledger.add_notices(notices)
                self._ledger.set_meta(REPORTED, json.dumps(reported))
        except Unavailable:
            for component in degraded:
                self._send_unsaved(component, problems[component], now_us)
            raise
        self._watch.note(degraded, recovered)

    def _notices(self, event: str, component: str, reason: str | None, now_us: int) -> list[Notice]:
        is_over = event == "recovered"
        subject = {"cause": component} | ({} if is_over else {"detail": reason})
        return self._subscriptions.notices(event, now_us, json.dumps(subject))

    def _send_unsaved(self, component: str, reason: str, now_us: int) -> None:
        """Report a problem once without the ledger, whose disk may be full."""
        for notice in self._notices("degraded", component, reason, now_us):
            if (notice.channel, component) not in self._sent_unsaved:
                self._sent_unsaved.add((notice.channel, component))
                message_id = new_id()
                body = self._body(message_id, [notice], 1)
                self._sender.send(notice.channel, message_id, notice.event, body)

    # -- messages -------------------------------------------------------------------------

    def _make(self, channel: str, event: str, now_us: int) -> int:
        """Make a message of the gathered notices, if it is time; returns when to try again."""
        if any((m.channel, m.event) == (channel, event) for m in self._waiting):
            return now_us + int(_LONGEST_NAP_S * _US)  # it comes with the next message
        made_us = self._outbox.made_us(channel, event, now_us - MINUTE_US)
        due_us = next_message_us(made_us, now_us, self._per_minute)
        if due_us <= now_us:
            notices, count, last = self._outbox.notices(channel, event, MOST_ITEMS)
            message_id = new_id()
            body = self._body(message_id, notices, count)
            message = Message(message_id, channel, event, now_us, body, 0, now_us, None)
            self._outbox.make(message, last)
            self._waiting.append(message)
        return due_us if due_us > now_us else now_us + int(_LONGEST_NAP_S * _US)

    def _body(self, message_id: str, notices: list[Notice], count: int) -> bytes:
        items = [
            load_item(notice, self._ledger, include_names=self._include_names) for notice in notices
        ]
        now = self._clock.now()
        return render_body(message_id, notices[0].event, items, count=count, now=now)

    def _hand_over(self, now_us: int) -> list[int]:
        """Hand over the messages that are due; returns when the others are."""
        later: list[int] = []
        for message in self._waiting:
            if message.id in self._in_flight:
                continue
            if now_us < message.next_us <= now_us + LONGEST_WAIT_S * _US:
                later.append(message.next_us)
                continue  # one that is due later than that was tried before the clock was set
            self._in_flight.add(message.id)
            self._sender.send(message.channel, message.id, message.event, message.body)
        return later

    def _note_results(self, now_us: int) -> None:
        """Note the outcomes of attempts; those that cannot be written are kept."""
        self._results += self._sender.results()
        if not self._results:
            return
        known = {message.id: message for message in self._waiting}
        outcomes = [self._outcome(result, known.get(result.message_id), now_us)
                    for result in self._results]  # fmt: skip
        self._outbox.note(outcomes, now_us)
        self._in_flight.difference_update(outcome.id for outcome in outcomes)
        self._results.clear()

    def _outcome(self, result: Attempt, message: Message | None, now_us: int) -> DeliveryOutcome:
        attempts = 1 if message is None else message.attempts + 1
        kind = _kind(result.channel)
        if result.error is None:
            _log.info("notification sent", code="notification_sent", channel=kind,
                      attempts=attempts)  # fmt: skip
            return DeliveryOutcome(result.message_id, kind, None, None)
        is_over = message is None or now_us - message.made_us >= self._give_up_after_us
        if is_over:
            _log.error("notification given up", code="notification_given_up", channel=kind,
                       reason=result.error, attempts=attempts)  # fmt: skip
        else:
            _log.warning("notification not sent yet", code="notification_delayed", channel=kind,
                         reason=result.error, attempts=attempts)  # fmt: skip
        next_us = None if is_over else now_us + int(wait_s(attempts) * _US)
        return DeliveryOutcome(result.message_id, kind, result.error, next_us)


def _kind(channel: str) -> str:
    """The kind of a channel, without its address."""
    return channel.partition(":")[0]
