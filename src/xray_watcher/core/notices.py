"""Telling people: who wants to hear what, when to tell it, and when to try again.

A notice is one thing that happened and that one channel has still to be told. A message
tells all notices of one event that have gathered, so a burst of images makes few messages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

MINUTE_US = 60_000_000
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to be told through one channel.

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
    """Who wants to hear what.

    Args:
        wants: the events that each channel wants, by its name.
    """

    def __init__(self, wants: Mapping[str, Collection[str]]) -> None:
        self._wants = wants

    def wants(self, event: str) -> list[str]:
        """The channels that want to hear of an event."""
        return [channel for channel, events in self._wants.items() if event in events]

    def notices(self, event: str, at_us: int, subject: str) -> list[Notice]:
        """Who has to be told of this."""
        return [Notice(channel, event, at_us, subject) for channel in self.wants(event)]


NO_SUBSCRIPTIONS = Subscriptions({})


def next_message_us(made_us: Sequence[int], now_us: int, per_minute: int) -> int:
    """From when on another message may be made.

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
    """Which troubles have lasted long enough to be told, and which have been gone as long.

    One that comes and goes is one trouble until it has been gone for that long: some are only
    met when there is work to do.

    Args:
        after_s: how long.
        told: the causes that an earlier run has told.
    """

    def __init__(self, after_s: float, told: Iterable[str]) -> None:
        self._after_s = after_s
        self._told = set(told)
        self._since_s: dict[str, float] = {}
        self._last_s: dict[str, float] = {}  # seen; also of those that an earlier run has told
        self._is_there: set[str] = set()

    def look(self, current: Collection[str], now_s: float) -> tuple[list[str], list[str]]:
        """Note what is out of order now.

        Args:
            current: the causes.
            now_s: now, on the monotonic clock.

        Returns:
            The causes to tell, and those to tell the end of. They are returned again until
            `note` says that it was done.
        """
        self._is_there = set(current)
        for component in self._is_there:
            self._since_s.setdefault(component, now_s)
            self._last_s[component] = now_s
        for component in self._told:
            self._last_s.setdefault(component, now_s)
        gone = {c for c, last_s in self._last_s.items()
                if c not in self._is_there and now_s - last_s >= self._after_s}  # fmt: skip
        for component in gone:
            self._since_s.pop(component, None)
            if component not in self._told:
                del self._last_s[component]
        lasting = {c for c in self._is_there if now_s - self._since_s[c] >= self._after_s}
        return sorted(lasting - self._told), sorted(gone & self._told)

    def note(self, degraded: Iterable[str], recovered: Iterable[str]) -> None:
        """These are told."""
        self._told = self.notified_after(degraded, recovered)

    def notified_after(self, degraded: Iterable[str], recovered: Iterable[str]) -> set[str]:
        """The causes that are told and not over, once these are."""
        return self._told.union(degraded).difference(recovered)

    def is_lasting(self, component: str) -> bool:
        """Whether a trouble is there, or has not been gone for long enough to be over."""
        return component in self._since_s

    @property
    def next_due_s(self) -> float:
        """When there may be something to tell."""
        begun = [self._since_s[component] for component in self._is_there - self._told]
        gone = [
            last_s for component, last_s in self._last_s.items() if component not in self._is_there
        ]
        return min([*begun, *gone], default=float("inf")) + self._after_s
