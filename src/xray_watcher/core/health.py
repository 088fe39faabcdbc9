"""What is out of order now, and when to try it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """One cause that keeps the service from working in full.

    Attributes:
        detail: what is wrong, for a person.
        since_s: when it began.
        retry_s: when to try again.
        delay_s: the wait before that; it doubles up to a minute.
    """

    detail: str
    since_s: float
    retry_s: float
    delay_s: float


class Health:
    """The causes of degraded running, each with its own back-off."""

    def __init__(self) -> None:
        self._troubles: dict[str, Trouble] = {}
        self.last_error: str | None = None

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        """The causes by their codes, such as "inbox" or "disk"."""
        return self._troubles

    def failed(self, cause: str, detail: str, now_s: float) -> bool:
        """Note a failure; returns whether it is a new cause."""
        before = self._troubles.get(cause)
        delay_s = FIRST_DELAY_S if before is None else min(before.delay_s * 2, LONGEST_DELAY_S)
        since_s = now_s if before is None else before.since_s
        self._troubles[cause] = Trouble(detail, since_s, now_s + delay_s, delay_s)
        self.last_error = detail
        return before is None

    def try_soon(self, cause: str, now_s: float) -> None:
        """Note that the last try did not tell whether a cause is gone."""
        self._troubles[cause] = replace(self._troubles[cause], retry_s=now_s + FIRST_DELAY_S)

    def recovered(self, cause: str) -> bool:
        """Note that a cause is gone; returns whether it was there."""
        return self._troubles.pop(cause, None) is not None

    def may_try(self, cause: str, now_s: float) -> bool:
        """Whether it is time to try what failed for this cause."""
        trouble = self._troubles.get(cause)
        return trouble is None or now_s >= trouble.retry_s

    def next_retry_s(self) -> float | None:
        """When the next try is due; None when all is well."""
        return min((trouble.retry_s for trouble in self._troubles.values()), default=None)
