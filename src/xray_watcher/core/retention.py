"""What may go: how old an image or a log must be, and the floor that is never gone below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """The `[retention]` table of the configuration.

    Attributes:
        days: by key of the folder, the age in days at which its images go; 0 keeps them.
        logs_days: the age in days at which logs go; 0 keeps them.
        keep_days: nothing younger goes, whatever the others say.
        keep_images: so many of the newest images of each folder stay, however old.
    """

    days: Mapping[str, int]
    logs_days: int
    keep_days: int
    keep_images: int

    @property
    def is_off(self) -> bool:
        """Whether nothing ever goes."""
        return not any(self.days.values()) and not self.logs_days


def images_before_us(
    rules: RetentionRules, folder: str, now_us: int, newest_kept_us: int | None
) -> int | None:
    """Images of a folder go that were filed before this.

    Args:
        rules: what is set.
        folder: its key.
        now_us: now; microseconds since 1970.
        newest_kept_us: when the last image of the floor was filed (the `keep_images`-th newest);
            None when the folder has no more than the floor.

    Returns:
        Microseconds since 1970; None when none goes.
    """
    days = rules.days.get(folder, 0)
    if not days:
        return None
    old_us = now_us - max(days, rules.keep_days) * DAY_US
    if not rules.keep_images:
        return old_us
    return None if newest_kept_us is None else min(old_us, newest_kept_us)


def log_goes(rules: RetentionRules, log: str, today: str) -> bool:
    """Whether a log is old enough to go.

    Args:
        rules: what is set.
        log: its name, as results-2026-11-23 or results-2026-11-23.2.
        today: the local day, as 2026-12-24.
    """
    if not rules.logs_days:
        return False
    age = date.fromisoformat(today) - date.fromisoformat(log_day(log))
    return age.days >= max(rules.logs_days, rules.keep_days)


def log_day(log: str) -> str:
    """The local day in the name of a log."""
    return log.removeprefix("results-").partition(".")[0]
