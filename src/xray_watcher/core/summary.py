"""The figures of one local day, folded from its images."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from xray_watcher.core.times import utc_text
from xray_watcher.core.values import LEVELS

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class DayEntry:
    """One image that was received on the day.

    Attributes:
        state: classified, rejected or pending.
        source: first folder below the inbox; empty for the inbox itself.
        received_at: when it was first seen, UTC.
        filed_at: when it was filed, or None.
        level: risk level of a classified image.
        top_label: its condition with the highest score.
        flags: of its record.
        reject_code: why it was rejected.
        scores: calibrated score by label.
        model: name, hash and precision of the network, as one text.
        simulated: true where the results mean nothing on patients.
    """

    state: Literal["classified", "rejected", "pending"]
    source: str
    received_at: datetime
    filed_at: datetime | None = None
    level: str | None = None
    top_label: str | None = None
    flags: tuple[str, ...] = ()
    reject_code: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    model: str | None = None
    simulated: bool = False


class DayFigures:
    """The figures of a day, folded from its finished images one by one.

    A day of 100,000 images takes some megabytes, and one more image some microseconds: the
    running day, as 2026-11-23, is summarised every minute.
    """

    def __init__(self, day: str) -> None:
        self._day = day
        self._counts = {key: Counter[str]() for key in (*_COUNTED, "by_flag")}
        self._by_level = Counter[str]()
        self._states = Counter[str]()
        self._scores: dict[str, array[float]] = {}
        self._latencies_s = array("d")
        self._simulated = False
        self._received = _Span()
        self._filed = _Span()

    def add(self, entry: DayEntry) -> None:
        """Take in an image that is classified or rejected."""
        assert entry.filed_at is not None, "a finished image is filed"
        self._states[entry.state] += 1
        self._by_level.update([entry.level] if entry.level else [])
        self._counts["by_flag"].update(entry.flags)
        for key, name in _COUNTED.items():
            value = getattr(entry, name)
            self._counts[key].update(() if value is None else (value,))
        for label, score in entry.scores.items():
            self._scores.setdefault(label, array("f")).append(score)
        self._latencies_s.append((entry.filed_at - entry.received_at).total_seconds())
        self._simulated |= entry.simulated
        self._received.add(entry.received_at)
        self._filed.add(entry.filed_at)

    def summary(
        self, pending: Sequence[DayEntry], *, closed: bool, waiting_in_inbox: int
    ) -> dict[str, Any]:
        """The figures as they are now.

        Args:
            pending: the day's images that are not finished.
            closed: the day is over and nothing of it is pending.
            waiting_in_inbox: files that are there now and not claimed yet.

        Returns:
            Ready for JSON. `received` = `classified` + `rejected` + `pending`.
        """
        received = _Span(self._received.first, self._received.last)
        for entry in pending:
            received.add(entry.received_at)
        by_source = self._counts["by_source"] + Counter(entry.source for entry in pending)
        return {
            "schema": SCHEMA,
            "day": self._day,
            "closed": closed,
            "received": self._states.total() + len(pending),
            "classified": self._states["classified"],
            "rejected": self._states["rejected"],
            "pending": len(pending),
            "waiting_in_inbox": waiting_in_inbox,
            "by_level": {level: self._by_level[level] for level in LEVELS},
            "by_top_label": _by_count(self._counts["by_top_label"]),
            "by_source": _by_count(by_source),
            "by_flag": _by_count(self._counts["by_flag"]),
            "by_reject_code": _by_count(self._counts["by_reject_code"]),
            "scores": {label: _quartiles(_sort(found)) for label, found in self._scores.items()},
            "latency_s": _latency(_sort(self._latencies_s)),
            "images_per_minute": self._rate(received),
            "models": _by_count(self._counts["models"]),
            "simulated": self._simulated,
            "first_received_at": None if received.first is None else utc_text(received.first),
            "last_received_at": None if received.last is None else utc_text(received.last),
        }

    def _rate(self, received: _Span) -> float | None:
        """Filed images per minute between the day's first arrival and its last filing."""
        if self._filed.last is None or received.first is None:
            return None
        minutes = (self._filed.last - received.first).total_seconds() / 60
        return round(self._states.total() / minutes, 2) if minutes > 0 else None


_COUNTED: Mapping[str, str] = {
    "by_top_label": "top_label",
    "by_source": "source",
    "by_reject_code": "reject_code",
    "models": "model",
}
"""The field of a `DayEntry` that each table counts; `by_flag` counts its flags."""


@dataclass(slots=True)
class _Span:
    """The first and the last of some times."""

    first: datetime | None = None
    last: datetime | None = None

    def add(self, at: datetime) -> None:
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)


def quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile, `share` in 0..1, of ascending numbers by linear interpolation (numpy's default).

    `statistics.quantiles` gives the same, but sorts again (500 times as slow) and needs two.
    """
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _by_count(counter: Counter[str]) -> dict[str, int]:
    """How often each value occurs, most frequent first."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _sort(numbers: array[float]) -> array[float]:
    """Sort in place; quick where only a few were added since the last time."""
    numbers[:] = array(numbers.typecode, sorted(numbers))
    return numbers


def _quartiles(ordered: Sequence[float]) -> dict[str, float]:
    shares = {"q1": 0.25, "median": 0.5, "q3": 0.75}
    return {name: round(quantile(ordered, share), 6) for name, share in shares.items()}


def _latency(ordered_s: Sequence[float]) -> dict[str, float] | None:
    """Seconds from first seen to filed."""
    if not ordered_s:
        return None
    return {"p50": round(quantile(ordered_s, 0.5), 3), "p95": round(quantile(ordered_s, 0.95), 3)}
