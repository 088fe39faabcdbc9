"""Who is notified of what, when a message may be sent, and when it is tried again.

A notice is one event that one channel has not sent yet. A message carries all notices of one event
that have gathered, so a burst of images makes few messages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

MINUTE_US = 60_000_000
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Notice:
    """One event to be sent through one channel.

    Attributes:
        channel: name of the channel.
        event: high, rejected, degraded, recovered or summary.
        at_us: when it happened; microseconds since 1970, UTC.
        subject: of an image its index; otherwise JSON.
    """

    channel: str
    event: str
    at_us: int
    subject: str


class Subscriptions:
    """The events that each channel sends, by the channel's name."""

    def __init__(self, events: Mapping[str, Collection[str]]) -> None:
        self._events = events

    def notices(self, event: str, at_us: int, subject: str) -> list[Notice]:
        """One notice for each channel that sends this event."""
        return [
            Notice(channel, event, at_us, subject)
            for channel, events in self._events.items()
            if event in events
        ]


NO_SUBSCRIPTIONS = Subscriptions({})


def next_message_us(made_us: Sequence[int], now_us: int, per_minute: int) -> int:
    """When the next message may be made.

    Args:
        made_us: when the last ones were made; microseconds.
        now_us: now. Those that are later were made before the clock was set back.
        per_minute: at most so many in any minute.
    """
    recent = sorted(made for made in made_us if now_us - MINUTE_US < made <= now_us)
    return now_us if len(recent) < per_minute else recent[-per_minute] + MINUTE_US


def wait_s(attempts: int) -> float:
    """Seconds until a message is tried again after so many failed attempts (1 or more)."""
    return float(min(FIRST_WAIT_S * 2 ** min(attempts - 1, 16), LONGEST_WAIT_S))


class ProblemWatch:
    """Which problems have lasted long enough to be reported, and which are over as long.

    A problem that comes and goes is one problem until it is over for that long: some are only met
    when there is work to do.

    Args:
        after_s: how long.
        reported: the components that an earlier run has reported.
    """

    def __init__(self, after_s: float, reported: Iterable[str]) -> None:
        self._after_s = after_s
        self._reported = set(reported)
        self._since_s: dict[str, float] = {}
        self._last_s: dict[str, float] = {}  # seen; also of those that an earlier run has reported
        self._current: set[str] = set()

    def update(self, current: Collection[str], now_s: float) -> tuple[list[str], list[str]]:
        """Note what is degraded now.

        Args:
            current: the components.
            now_s: now, on the monotonic clock.

        Returns:
            The components to report as degraded, and those to report as recovered. They are
            returned again until `note` says that it was done.
        """
        self._current = set(current)
        for component in self._current:
            self._since_s.setdefault(component, now_s)
            self._last_s[component] = now_s
        for component in self._reported:
            self._last_s.setdefault(component, now_s)
        over = {c for c, last_s in self._last_s.items()
                if c not in self._current and now_s - last_s >= self._after_s}  # fmt: skip
        for component in over:
            self._since_s.pop(component, None)
            if component not in self._reported:
                del self._last_s[component]
        lasting = {c for c in self._current if now_s - self._since_s[c] >= self._after_s}
        return sorted(lasting - self._reported), sorted(over & self._reported)

    def note(self, degraded: Iterable[str], recovered: Iterable[str]) -> None:
        """Note that these are reported."""
        self._reported = self.reported_after(degraded, recovered)

    def reported_after(self, degraded: Iterable[str], recovered: Iterable[str]) -> set[str]:
        """The components that are reported and not over, once these are reported."""
        return self._reported.union(degraded).difference(recovered)

    def is_lasting(self, component: str) -> bool:
        """Whether a problem is there, or not over for long enough."""
        return component in self._since_s

    @property
    def next_due_s(self) -> float:
        """When there may be something to report."""
        begun = [self._since_s[component] for component in self._current - self._reported]
        over = [last_s for c, last_s in self._last_s.items() if c not in self._current]
        return min([*begun, *over], default=float("inf")) + self._after_s
