"""The clock: one place where the time comes from, so that tests can hold it in their hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the shell asks for the time."""

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
