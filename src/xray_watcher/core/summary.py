"""The figures of one local day, folded from its images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
        state: what has become of it by now.
        source: first folder below the inbox; empty for the inbox itself.
        received_at: when it was first seen, UTC.
        filed_at: when it was filed, or None.
        level: risk level of a classified image.
        top_label: its condition with the highest score.
        flags: of its record.
        reject_code: why it was set aside.
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


def summarise(
    day: str, entries: Iterable[DayEntry], *, closed: bool, waiting_in_inbox: int
) -> dict[str, Any]:
    """Fold a day.

    Args:
        day: as 2026-11-23; the local day on which the images were received.
        entries: its images.
        closed: the day is over and nothing of it is pending.
        waiting_in_inbox: files that are there now and not claimed yet.

    Returns:
        The figures, ready for JSON. `received` = `classified` + `rejected` + `pending`.
    """
    images = list(entries)
    states = Counter(image.state for image in images)
    received = sorted(image.received_at for image in images)
    return {
        "schema": SCHEMA,
        "day": day,
        "closed": closed,
        "received": len(images),
        "classified": states["classified"],
        "rejected": states["rejected"],
        "pending": states["pending"],
        "waiting_in_inbox": waiting_in_inbox,
        "by_level": {level: sum(i.level == level for i in images) for level in LEVELS},
        "by_top_label": _counts(i.top_label for i in images),
        "by_source": _counts(i.source for i in images),
        "by_flag": _counts(flag for i in images for flag in i.flags),
        "by_reject_code": _counts(i.reject_code for i in images),
        "scores": _score_quartiles(images),
        "latency_s": _latency(images),
        "images_per_minute": _rate(images),
        "models": _counts(i.model for i in images),
        "simulated": any(i.simulated for i in images),
        "first_received_at": utc_text(received[0]) if received else None,
        "last_received_at": utc_text(received[-1]) if received else None,
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile by linear interpolation (type 7 of Hyndman and Fan, 1996; numpy's default).

    Args:
        ordered: one or more numbers, ascending.
        share: in 0..1.
    """
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    """How often each value occurs, most frequent first."""
    counter = Counter(value for value in values if value is not None)
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _score_quartiles(images: Sequence[DayEntry]) -> dict[str, dict[str, float]]:
    by_label: dict[str, list[float]] = {}
    for image in images:
        for label, score in image.scores.items():
            by_label.setdefault(label, []).append(score)
    return {label: _quartiles(sorted(scores)) for label, scores in by_label.items()}


def _quartiles(ordered: Sequence[float]) -> dict[str, float]:
    shares = {"q1": 0.25, "median": 0.5, "q3": 0.75}
    return {name: round(quantile(ordered, share), 6) for name, share in shares.items()}


def _latency(images: Sequence[DayEntry]) -> dict[str, float] | None:
    """Seconds from first seen to filed."""
    seconds = sorted(
        (image.filed_at - image.received_at).total_seconds() for image in images if image.filed_at
    )
    if not seconds:
        return None
    return {"p50": round(quantile(seconds, 0.5), 3), "p95": round(quantile(seconds, 0.95), 3)}


def _rate(images: Sequence[DayEntry]) -> float | None:
    """Filed images per minute between the day's first arrival and its last filing."""
    filed = [image.filed_at for image in images if image.filed_at]
    if not filed:
        return None
    minutes = (max(filed) - min(i.received_at for i in images)).total_seconds() / 60
    return round(len(filed) / minutes, 2) if minutes > 0 else None
