"""Running totals: what one filed image or batch adds to the counters and histograms.

The ledger keeps the totals and adds to them in the commit that files the images, so they
survive restarts, never fall, and cost nothing to read however many images there are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

from xray_watcher.core.image_record import ImageRecord

Key = tuple[str, str, str]
"""Series, label value ("" where it has none), and bucket: "" of a counter, else an upper bound
of a histogram as text, or `SUM`."""

Tally = Counter[Key]
"""What is added, by key. Values may be fractions: sums of seconds and scores."""

SUM = "sum"
REST = "+Inf"

RECEIVED, CLASSIFIED, REJECTED = "received", "classified", "rejected"
CONDITION, FLAG = "condition", "flag"
SENT, NOT_TAKEN, GIVEN_UP = "notify_sent", "notify_failed_attempts", "notify_given_up"
REMOVED = "retention_removed"
STAGE, FILED, BATCH, SCORE = "stage_seconds", "filed_seconds", "batch_images", "score"

STAGES = ("settle", "queue", "decode", "infer", "file")

_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)
BOUNDS: Mapping[str, tuple[float, ...]] = {
    STAGE: _SECONDS,
    FILED: (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0),
    BATCH: (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0),
    SCORE: tuple(tenth / 20 for tenth in range(1, 20)),
}
"""Upper bounds of each histogram's buckets, inclusive; above the last one is `REST`."""

_BUCKETS = {series: (*map(str, bounds), REST) for series, bounds in BOUNDS.items()}


def tally_image(tally: Tally, record: ImageRecord, waited_s: float) -> None:
    """Add one filed image, which waited so many seconds from first seen to filed."""
    if record.rejected is None:
        tally[CLASSIFIED, record.risk_level, ""] += 1
        tally[CONDITION, str(record.top_label), ""] += 1
    else:
        tally[REJECTED, record.rejected.code, ""] += 1
    for flag in record.flags:
        tally[FLAG, flag, ""] += 1
    for stage in STAGES:
        ms: float = getattr(record.timings_ms, stage)
        if ms or record.rejected is None or stage not in ("decode", "infer"):  # it never saw them
            _observe(tally, STAGE, stage, ms / 1000)
    _observe(tally, FILED, "", max(waited_s, 0.0))  # a clock that was set back shows no gain
    for label, score in (record.all_probs or {}).items():
        _observe(tally, SCORE, label, score)


def tally_batch(images: int) -> Tally:
    """What a decided batch of so many images adds."""
    tally = Tally()
    _observe(tally, BATCH, "", images)
    return tally


def _observe(tally: Tally, series: str, label: str, value: float) -> None:
    bucket = _BUCKETS[series][bisect_left(BOUNDS[series], value)]
    tally[series, label, bucket] += 1
    tally[series, label, SUM] += value  # type: ignore[assignment]  # a Counter adds fractions too
