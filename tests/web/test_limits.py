"""How much anybody may ask for; time is held in the hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from rig import HandClock
from xray_watcher.web import limits
from xray_watcher.web.limits import Rate, TooLarge, TooSlow, body_chunks
from xray_watcher.web.slots import Pace


class Client:
    """Sends chunks; each makes us wait for that many seconds."""

    def __init__(
        self, clock: HandClock, chunks: list[tuple[bytes, float]], *, ends: bool = True
    ) -> None:
        self.clock = clock
        self.chunks = chunks
        self.ends = ends

    async def receive(self) -> Message:
        if not self.chunks:
            return {"type": "http.request", "more_body": False} if self.ends else GONE
        content, seconds = self.chunks.pop(0)
        self.clock.passed_s += seconds
        if seconds > limits.PACE_WINDOW_S:
            raise TimeoutError
        return {"type": "http.request", "body": content, "more_body": True}


GONE: Message = {"type": "http.disconnect"}


def received(client: Client, max_bytes: int = 10**9) -> bytes:
    async def read(chunks: AsyncIterator[bytes]) -> bytes:
        return b"".join([chunk async for chunk in chunks])

    return asyncio.run(
        read(body_chunks(client.receive, client.clock, max_bytes, Pace(client.clock)))
    )


def test_a_body_is_passed_on_as_it_comes_in() -> None:
    clock = HandClock()
    assert received(Client(clock, [(b"a", 0.0), (b"", 0.0), (b"bc", 0.1)])) == b"abc"


def test_a_client_that_keeps_the_pace_may_take_hours() -> None:
    clock = HandClock()
    chunks = [(b"x" * 5_000, 5.0)] * 1000
    assert len(received(Client(clock, [*chunks]))) == 5_000_000
    assert clock.passed_s == 5000


def test_a_client_that_sends_nothing_for_a_window_is_cut_off() -> None:
    with pytest.raises(TooSlow):
        received(Client(HandClock(), [(b"x", 1.0), (b"x", 21.0)]))


def test_more_than_is_taken_ends_the_reading() -> None:
    with pytest.raises(TooLarge):
        received(Client(HandClock(), [(b"x" * 600, 0.0)] * 2), 1000)


def test_a_client_that_goes_away_ends_the_reading() -> None:
    with pytest.raises(ClientDisconnect):
        received(Client(HandClock(), [(b"x", 0.0)], ends=False))


def test_a_rate_counts_for_each_key_and_forgets_after_a_minute() -> None:
    clock = HandClock()
    rate = Rate(2, clock)
    for _ in range(2):
        assert rate.allows("a")
    assert not rate.allows("a")
    assert rate.allows("b")
    clock.passed_s += 61
    assert rate.allows("a")


def test_a_rate_remembers_a_bounded_number_of_keys() -> None:
    rate = Rate(1, HandClock())
    for number in range(10_000):
        assert rate.allows(str(number))
    assert len(rate._events) <= 4096
