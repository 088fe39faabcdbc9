"""The clock: one source of time, which tests replace by one that they set."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The two times that the program needs."""

    def monotonic_s(self) -> float:
        """Seconds that only ever go forward: for waiting and measuring."""
        ...

    def now(self) -> datetime:
        """The time of day in UTC: for records."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic_s(self) -> float:
        """Seconds that only ever go forward."""
        return time.monotonic()

    def now(self) -> datetime:
        """The time of day in UTC."""
        return datetime.now(UTC)
