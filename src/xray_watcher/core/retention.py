"""What may be removed: how old an image or a log must be, and how many always stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise

DAY_US = 86_400_000_000

STEP_US = 2 * DAY_US
"""The believed time advances by at most this much in one day's run."""

GAP_DAYS = 7
"""A longer time without an image counts as this many days where only the images are witnesses."""


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """The `[retention]` table of the configuration.

    Attributes:
        days: by key of the folder, the age in days at which its images are removed; 0 keeps them.
        logs_days: the age in days at which logs are removed; 0 keeps them.
        keep_days: nothing younger is removed.
        keep_images: so many of the newest images of each folder stay, however old.
    """

    days: Mapping[str, int]
    logs_days: int
    keep_days: int
    keep_images: int

    @property
    def is_off(self) -> bool:
        """Whether nothing is ever removed."""
        return not any(self.days.values()) and not self.logs_days


def believed_us(now_us: int, last_us: int) -> int:
    """The time by which ages are judged in one day's run.

    A clock that jumps years ahead costs two days' worth of images, and people see it meanwhile. A
    service that was off for weeks catches up, two days a run.

    Args:
        now_us: what the clock on the wall says; microseconds since 1970.
        last_us: what was believed in the last run.
    """
    return min(now_us, last_us + STEP_US)


def witnessed_us(days: Iterable[str]) -> int | None:
    """The time that has passed for certain: what is believed before the first run.

    Images that arrived day by day are witnesses of the days between them. A clock that was wrong
    leaves a gap, of which a week counts.

    Args:
        days: local days on which images arrived, as 2026-11-23, oldest first.

    Returns:
        Microseconds since 1970; None without any day.
    """
    known = [date.fromisoformat(day).toordinal() for day in days]
    if not known:
        return None
    last = known[0] + sum(min(after - before, GAP_DAYS) for before, after in pairwise(known))
    midnight = datetime.combine(date.fromordinal(last), datetime.min.time(), UTC)
    return int(midnight.timestamp()) * 1_000_000


def images_before_us(
    rules: RetentionRules, folder: str, now_us: int, newest_kept_us: int | None
) -> int | None:
    """Images of a folder that were filed before this are removed.

    Args:
        rules: what is set.
        folder: its key.
        now_us: now; microseconds since 1970.
        newest_kept_us: when the `keep_images`-th newest image was filed; None when the folder has
            no more than those.

    Returns:
        Microseconds since 1970; None when none is removed.
    """
    days = rules.days.get(folder, 0)
    if not days:
        return None
    old_us = now_us - max(days, rules.keep_days) * DAY_US
    if not rules.keep_images:
        return old_us
    return None if newest_kept_us is None else min(old_us, newest_kept_us)


def is_log_due(rules: RetentionRules, log: str, today: str) -> bool:
    """Whether a log, as results-2026-11-23.2, is old enough on a local day, as 2026-12-24."""
    if not rules.logs_days:
        return False
    age = date.fromisoformat(today) - date.fromisoformat(log_day(log))
    return age.days >= max(rules.logs_days, rules.keep_days)


def log_day(log: str) -> str:
    """The local day in the name of a log, as 2026-11-23."""
    return log.removeprefix("results-").partition(".")[0]
