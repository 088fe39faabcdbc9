"""The figures of today for the live page, taken from the ledger at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo

from xray_watcher.core.image_record import ImageRecord
from xray_watcher.core.times import from_us
from xray_watcher.core.values import LEVELS, RiskRules
from xray_watcher.ledger.page_queries import Kind, PageLedger
from xray_watcher.records import REJECTED
from xray_watcher.web.pages.views import ImageView, image_view

HOURS = 24
HIGHS_SHOWN = 4
REJECTED_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Hours:
    """Arrivals per hour of a local day."""

    counts: tuple[int, ...]
    titles: tuple[str, ...]
    label: str

    @property
    def busiest(self) -> str:
        """The hour with the most arrivals, in words."""
        return self.titles[self.counts.index(max(self.counts))]


@dataclass(frozen=True, slots=True)
class DayCounts:
    """The images of a day: by level, rejected, and pending.

    Attributes:
        by_level: images by level; "Rejected" is one.
        oldest_pending_at: when the oldest pending image came in, in local time.
    """

    by_level: Mapping[str, int]
    pending: int
    oldest_pending_at: datetime | None

    @property
    def classified(self) -> int:
        """Images that were scored."""
        return sum(self.by_level[level] for level in LEVELS)

    @property
    def rejected(self) -> int:
        """Images that were rejected."""
        return self.by_level[REJECTED]

    @property
    def received(self) -> int:
        """All images that came in."""
        return self.classified + self.rejected + self.pending


@dataclass(frozen=True, slots=True)
class Today:
    """What the live page shows of a day."""

    day: str
    counts: DayCounts
    kinds: tuple[Kind, ...]
    hours: Hours
    highs: tuple[ImageView, ...]
    rejections: tuple[ImageView, ...]


def load_today(ledger: PageLedger, day: str, rules: RiskRules, zone: tzinfo | None) -> Today:
    """What is shown of a day, as it is now."""

    def views(records: Iterable[ImageRecord]) -> tuple[ImageView, ...]:
        return tuple(image_view(record, rules, zone) for record in records)

    return Today(
        day=day,
        counts=count_images(ledger, day, zone),
        kinds=tuple(ledger.kinds(day)),
        hours=sum_hours(ledger.arrivals(day), zone),
        highs=views(ledger.latest_of_level(day, LEVELS[0], HIGHS_SHOWN)),
        rejections=views(ledger.set_aside(day, REJECTED_SHOWN)),
    )


def count_images(ledger: PageLedger, day: str, zone: tzinfo | None) -> DayCounts:
    """The counts of a day as they are now."""
    found = ledger.day_counts(day)
    oldest_us = min((row.received_us for row in ledger.open_rows()), default=None)
    return DayCounts(
        {kind: found.get(kind, 0) for kind in (*LEVELS, REJECTED)},
        found.get("pending", 0),
        None if oldest_us is None else from_us(oldest_us).astimezone(zone),
    )


def sum_hours(quarters: Iterable[tuple[int, int]], zone: tzinfo | None) -> Hours:
    """Put quarters of an hour together to the hours of the local day.

    Args:
        quarters: beginning in microseconds since 1970, UTC, and number of arrivals.
        zone: local time zone; None is the system's.
    """
    by_hour: Counter[int] = Counter()
    for start_us, count in quarters:
        by_hour[from_us(start_us).astimezone(zone).hour] += count
    counts = tuple(by_hour[hour] for hour in range(HOURS))
    titles = tuple(f"{hour:02d}:00, {_images(count)}" for hour, count in enumerate(counts))
    most = f"; most in the hour from {titles[counts.index(max(counts))]}" if sum(counts) else ""
    return Hours(counts, titles, f"Arrivals per hour: {_images(sum(counts))} in all{most}.")


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"
