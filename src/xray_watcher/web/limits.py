"""Limits of one client: pace and size of a body, tries in a minute."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from xray_watcher.system.clock import Clock
from xray_watcher.web.slots import Pace

PACE_WINDOW_S = 20.0
PACE_BYTES = 20_000
"""For every window that we wait for a body, at least this much must come in."""

SMALL_BODY_BYTES = 16_384
"""Most that a request may hold that is no upload."""

_KEYS = 4096
_OTHERS_WAIT = "Others wait, and this was the slowest, or had more than its share; it was cut off."


class TooSlow(Exception):
    """A client sends its body too slowly, or others need its place; the message says which."""


class TooLarge(Exception):
    """A request is larger than what is taken."""


async def body_chunks(
    receive: Receive, clock: Clock, max_bytes: int, pace: Pace
) -> AsyncIterator[bytes]:
    """A request's body as it comes in.

    Args:
        pace: is kept; others may end it.

    Raises:
        TooSlow: less than the least came in within a window, or others needed its place.
        TooLarge: more than `max_bytes` came in.
        ClientDisconnect: the client has gone away.
    """
    total = window_bytes = 0
    waited_s = 0.0  # for the client alone: the time that our own disk takes does not count
    while True:
        _check(pace)
        began_s = clock.monotonic_s()
        try:
            async with asyncio.timeout(PACE_WINDOW_S - waited_s) as timer:
                with pace.waiting(timer):
                    message = await receive()
        except TimeoutError:
            _check(pace)
            if window_bytes < PACE_BYTES:
                raise TooSlow("It came in too slowly and was cut off.") from None
            window_bytes, waited_s = 0, 0.0
            continue
        waited_s += clock.monotonic_s() - began_s
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        total += len(chunk)
        window_bytes += len(chunk)
        pace.count(len(chunk))
        if total > max_bytes:
            raise TooLarge
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


def _check(pace: Pace) -> None:
    if pace.is_ended:
        raise TooSlow(_OTHERS_WAIT)


class Rate:
    """At most so many events in a minute, for each key."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._events: dict[str, deque[float]] = {}

    def allows(self, key: str) -> bool:
        """Whether one more is allowed now; if so, it is counted."""
        now_s = self._clock.monotonic_s()
        if key not in self._events and len(self._events) >= _KEYS:
            self._events.pop(next(iter(self._events)))
        events = self._events.setdefault(key, deque())
        while events and events[0] <= now_s - 60.0:
            events.popleft()
        is_allowed = len(events) < self._per_minute
        if is_allowed:
            events.append(now_s)
        return is_allowed
