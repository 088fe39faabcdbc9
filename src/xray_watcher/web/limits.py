"""How much anybody may ask for: pace of a body, uploads at once, tries to sign in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from xray_watcher.system.clock import Clock

PACE_WINDOW_S = 20.0
PACE_BYTES = 20_000
"""For every window that we wait for a body, at least this much must come in."""

SLOT_WAIT_S = 30.0
"""An upload waits this long for others to end before it is refused."""

SMALL_BODY_BYTES = 16_384
"""Most that a request may hold that is no upload."""

_KEYS = 4096


class TooSlow(Exception):
    """A client sends its body too slowly."""


class TooLarge(Exception):
    """A request is larger than what is taken."""


class Busy(Exception):
    """So many uploads go on that this one has to come again later."""


async def body_chunks(receive: Receive, clock: Clock, max_bytes: int) -> AsyncIterator[bytes]:
    """A request's body as it comes in.

    Args:
        receive: of the request.
        clock: the time.
        max_bytes: most that is taken.

    Raises:
        TooSlow: less than the least came in within a window.
        TooLarge: more than `max_bytes` came in.
        ClientDisconnect: the client has gone away.
    """
    total = window_bytes = 0
    waited_s = 0.0  # for the client alone: the time that our own disk takes does not count
    while True:
        began_s = clock.monotonic_s()
        try:
            async with asyncio.timeout(PACE_WINDOW_S - waited_s):
                message = await receive()
        except TimeoutError:
            if window_bytes < PACE_BYTES:
                raise TooSlow from None
            window_bytes, waited_s = 0, 0.0
            continue
        waited_s += clock.monotonic_s() - began_s
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        total += len(chunk)
        window_bytes += len(chunk)
        if total > max_bytes:
            raise TooLarge
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


class Slots:
    """Places for uploads that go on at the same time.

    Args:
        count: of them.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a place, or wait for one.

        Raises:
            Busy: none got free in time.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), SLOT_WAIT_S)
        except TimeoutError:
            raise Busy from None
        try:
            yield
        finally:
            self._free.release()


class Rate:
    """At most so many events in a minute, for each key.

    Args:
        per_minute: of events.
        clock: the time.
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._events: dict[str, deque[float]] = {}

    def allows(self, key: str) -> bool:
        """Whether one more is allowed now; nothing is counted."""
        return len(self._recent(key)) < self._per_minute

    def count(self, key: str) -> None:
        """Count one."""
        if len(self._events) >= _KEYS and key not in self._events:
            self._events.pop(next(iter(self._events)))
        self._events.setdefault(key, deque(maxlen=self._per_minute)).append(
            self._clock.monotonic_s()
        )

    def _recent(self, key: str) -> deque[float]:
        events = self._events.get(key, deque())
        while events and events[0] <= self._clock.monotonic_s() - 60.0:
            events.popleft()
        return events
