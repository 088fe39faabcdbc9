"""What is out of order now, and when to try it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """One cause that keeps the service from working in full.

    Attributes:
        cause: its code, as `status` shows it.
        detail: what is wrong, for a person.
        since_s: when it began.
        retry_s: when to try again.
        delay_s: the wait before that; it doubles up to a minute.
    """

    cause: str
    detail: str
    since_s: float
    retry_s: float
    delay_s: float


class Health:
    """The causes of degraded running; each unit of work has a back-off of its own."""

    def __init__(self) -> None:
        self._troubles: dict[str, Trouble] = {}
        self.last_error: str | None = None

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        """What is out of order, by the unit of work that failed."""
        return self._troubles

    @property
    def causes(self) -> Mapping[str, Trouble]:
        """What is out of order, by its cause, such as "inbox", "folders" or "disk"."""
        return {trouble.cause: trouble for trouble in self._troubles.values()}

    def failed(self, unit: str, detail: str, now_s: float, cause: str | None = None) -> bool:
        """Note a failure; returns whether it is a new cause."""
        cause = cause or unit
        before = self._troubles.get(unit)
        is_new = before is None or before.cause != cause
        delay_s = FIRST_DELAY_S if before is None else min(before.delay_s * 2, LONGEST_DELAY_S)
        since_s = now_s if before is None or is_new else before.since_s
        self._troubles[unit] = Trouble(cause, detail, since_s, now_s + delay_s, delay_s)
        self.last_error = detail
        return is_new

    def note(self, cause: str, detail: str, now_s: float) -> bool:
        """Note a state that is looked at in each turn; returns whether it is a new cause."""
        before = self._troubles.get(cause)
        since_s = now_s if before is None else before.since_s
        self._troubles[cause] = Trouble(cause, detail, since_s, math.inf, 0.0)
        self.last_error = detail
        return before is None

    def recovered(self, unit: str) -> bool:
        """Note that a cause is gone; returns whether it was there."""
        return self._troubles.pop(unit, None) is not None

    def may_try(self, unit: str, now_s: float) -> bool:
        """Whether it is time to try what failed."""
        trouble = self._troubles.get(unit)
        return trouble is None or now_s >= trouble.retry_s

    def next_retry_s(self) -> float | None:
        """When the next try is due; None when all is well."""
        return min((trouble.retry_s for trouble in self._troubles.values()), default=None)
