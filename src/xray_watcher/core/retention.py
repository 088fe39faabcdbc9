"""What may go: how old an image or a log must be, and the floor that is never gone below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

DAY_US = 86_400_000_000
DAY_S = 86_400.0

MOST_AHEAD_S = 3 * DAY_S
"""So far may the clock on the wall go ahead by itself; a weekend off is less."""

DOUBT_S = DAY_S
"""So long is a clock not believed that has gone further: people may put it right meanwhile."""


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


class ClockWatch:
    """Whether the clock on the wall is believed when it says that something is old.

    Args:
        now_s: now, on the monotonic clock.
        wall_s: now, on the wall.
        ahead_s: how far that is ahead of the last time that was believed.
        waited_s: how much of the doubt an earlier life has waited.

    Attributes:
        ahead_s: how far the clock has gone ahead with no time to show for it.
        waited_s: how much of the doubt is over.
    """

    def __init__(self, now_s: float, wall_s: float, ahead_s: float, waited_s: float) -> None:
        self._now_s = now_s
        self._wall_s = wall_s
        self.ahead_s = ahead_s
        self.waited_s = waited_s

    @property
    def is_doubted(self) -> bool:
        """Whether nothing may go now."""
        return self.ahead_s > MOST_AHEAD_S and self.waited_s < DOUBT_S

    def look(self, now_s: float, wall_s: float) -> None:
        """Compare both clocks; often, for each look forgives what is less than the limit."""
        passed_s = now_s - self._now_s
        if self.is_doubted:
            self.waited_s = min(self.waited_s + passed_s, DOUBT_S)
        self.ahead_s += wall_s - self._wall_s - passed_s
        self._now_s, self._wall_s = now_s, wall_s
        if self.ahead_s <= MOST_AHEAD_S:
            self.believe()

    def believe(self) -> None:
        """Take the clock as it is; what it says from now on is watched."""
        self.ahead_s = self.waited_s = 0.0


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
