"""Shares for everybody, with clients that are made up and time that is held in the hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from starlette.types import Message

from rig import HandClock
from xray_watcher.web import shares
from xray_watcher.web.limits import TooSlow, body_chunks
from xray_watcher.web.shares import (
    Busy,
    Pace,
    Places,
    Shares,
    UploadSlot,
    address_key,
    held,
    is_ours,
    longest_held_up,
    newest_of_the_largest,
    oldest,
)

A, B, C = ("token:a",), ("token:b",), ("token:c",)


# -- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "key", "ours"),
    [
        ("192.0.2.7", "192.0.2.7", False),
        ("127.0.0.9", "127.0.0.9", True),
        ("::1", "::1", True),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", False),
        ("fe80::1%eth0", "fe80::", False),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7", False),
        ("", "", False),
        ("a\nb", "a\nb", False),
    ],
)
def test_an_address_is_counted_as_one_machine_has_it(address: str, key: str, ours: bool) -> None:
    assert address_key(address).removeprefix("address:") in (
        key,
        key.replace("192.0.2.7", "c000:207"),
    )
    assert is_ours(address) is ours


def test_whoever_has_two_keys_holds_what_the_fuller_one_has() -> None:
    clock = HandClock()
    places = [UploadSlot(keys, clock) for keys in (("t", "x"), ("u", "x"), ("t", "y"))]
    assert held(places, ("t", "x")) == 2
    assert held(places, ("u",)) == 1
    assert held(places, ("v",)) == held(places, ()) == 0


# -- places that are taken at once --------------------------------------------------------------


def nobody(_shares: Shares, _keys: shares.Keys) -> None:
    return None


def test_places_are_bounded_in_all_and_for_each_and_counted_when_they_are_taken() -> None:
    some = Shares(4, 2, HandClock(), nobody)
    first = some.take(A)
    some.take(A)
    with pytest.raises(Busy):
        some.take(A)
    some.take(B)
    some.take(C)
    with pytest.raises(Busy):
        some.take(("token:d",))
    some.leave(first)
    some.leave(first)
    assert some.taken == 3
    with some.place(A):
        assert some.taken == 4
    assert some.taken == 3


def test_of_forms_the_oldest_ends() -> None:
    forms = Shares(2, 2, HandClock(), oldest)
    first, second = forms.take(A), forms.take(A)
    third = forms.take(B)
    assert (first.is_ended, second.is_ended, third.is_ended) == (True, False, False)
    assert forms.taken == 2


def test_of_streams_the_newest_of_whoever_has_most_ends_for_one_with_less() -> None:
    streams = Shares(8, 4, HandClock(), newest_of_the_largest)
    mine, theirs = [streams.take(A) for _ in range(4)], [streams.take(B) for _ in range(4)]
    with pytest.raises(Busy):
        streams.take(A)
    streams.take(C)
    assert [place.is_ended for place in mine + theirs].count(True) == 1
    streams.take(C)
    with pytest.raises(Busy):  # nobody has two more than C any longer
        streams.take(C)
    assert streams.taken == 8


class Reader:
    """A client that takes, or does not take, its answer."""

    def __init__(self, held_up_s: float) -> None:
        self.seconds = held_up_s
        self.is_cut_off = False

    def held_up_s(self) -> float:
        return self.seconds

    def cut_off(self) -> None:
        self.is_cut_off = True


def test_of_requests_the_one_ends_whose_client_takes_nothing_for_longest() -> None:
    requests = Shares(4, 2, HandClock(), longest_held_up)
    slow, slower, others = Reader(5), Reader(9), Reader(99)
    for keys, reader in ((B, others), (A, slow), (A, slower)):
        requests.take(keys, reader)
    requests.take(A, Reader(0))
    assert (slow.is_cut_off, slower.is_cut_off, others.is_cut_off) == (False, True, False)
    requests.take(C, Reader(0))
    requests.take(("token:d",), Reader(0))
    assert others.is_cut_off, "where all are taken, whoever it is"
    slow.seconds = 0.5
    with pytest.raises(Busy):
        requests.take(A, Reader(0))


# -- the queue for uploads ------------------------------------------------------------------------


class Upload:
    """An upload that sends when it is told to."""

    def __init__(self, places: Places, clock: HandClock, keys: shares.Keys) -> None:
        self.place: UploadSlot | None = None
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(places, clock, keys))

    async def _run(self, places: Places, clock: HandClock, keys: shares.Keys) -> None:
        async with places.place(keys) as self.place:
            async for chunk in body_chunks(self.sent.get, clock, 10**9, self.place.pace):
                if chunk == b"file":
                    await places.give_way(self.place)

    def send(self, content: bytes, more: bool = True) -> None:
        self.sent.put_nowait({"type": "http.request", "body": content, "more_body": more})


Scene = Callable[[Places, HandClock, Callable[[shares.Keys], Upload]], Awaitable[None]]


def play(scene: Scene, total: int = 4) -> None:
    """Play with so many places."""

    async def playing() -> None:
        clock, uploads = HandClock(), []
        places = Places(total, clock)

        def upload(keys: shares.Keys) -> Upload:
            uploads.append(Upload(places, clock, keys))
            return uploads[-1]

        try:
            await scene(places, clock, upload)
        finally:
            for one in uploads:
                one.task.cancel()
            await asyncio.gather(*(one.task for one in uploads), return_exceptions=True)
            assert (places.taken, places.waiting) == (0, 0)

    asyncio.run(playing())


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def passed(clock: HandClock, seconds: float) -> None:
    """Time passes, a look at a time."""
    for _ in range(int(seconds / shares.LOOK_S)):
        clock.passed_s += shares.LOOK_S
        await asyncio.sleep(shares.LOOK_S / 50)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes 5 ms of real time, and stands for 0.25 s of the clock in the hand."""
    monkeypatch.setattr(shares, "LOOK_S", 0.25)
    real = asyncio.timeout

    def fifty_times_as_fast(seconds: float | None) -> asyncio.Timeout:
        return real(None if seconds is None else seconds / 50)

    monkeypatch.setattr(shares.asyncio, "timeout", fifty_times_as_fast)


def test_whoever_holds_fewest_comes_first() -> None:
    async def scene(
        places: Places, _clock: HandClock, upload: Callable[[shares.Keys], Upload]
    ) -> None:
        running = [upload(A) for _ in range(4)]
        await settle()
        again, other = upload(A), upload(B)
        await settle()
        assert (places.taken, places.waiting) == (4, 2)
        running[0].send(b"", more=False)
        await settle()
        assert other.place is not None
        assert again.place is None

    play(scene)


def test_one_that_waits_ends_the_slowest_within_a_second() -> None:
    async def scene(
        _places: Places, clock: HandClock, upload: Callable[[shares.Keys], Upload]
    ) -> None:
        running = [upload(A) for _ in range(4)]
        await settle()
        for number, one in enumerate(running[1:], 1):
            one.send(b"x" * 10_000 * number)
        await passed(clock, 3)
        other = upload(B)
        await passed(clock, 1)
        assert other.place is not None
        with pytest.raises(TooSlow, match="Others wait"):
            await running[0].task
        assert not any(one.task.done() for one in running[1:])

    play(scene)


def test_one_that_is_fresh_or_fast_is_not_ended_for_another_of_its_holder() -> None:
    async def scene(
        _places: Places, clock: HandClock, upload: Callable[[shares.Keys], Upload]
    ) -> None:
        running = [upload(A) for _ in range(4)]
        waits = upload(A)
        for _ in range(40):
            await settle()
            for one in running:
                one.send(b"x" * 20_000)
            await passed(clock, 0.25)
        assert waits.place is None
        assert not any(one.task.done() for one in running)

    play(scene)


def test_a_fast_one_ends_when_its_holder_has_more_than_half_and_another_waits_long() -> None:
    async def scene(
        _places: Places, clock: HandClock, upload: Callable[[shares.Keys], Upload]
    ) -> None:
        running = [upload(A) for _ in range(4)]
        await settle()
        others = [upload(B) for _ in range(3)]
        for _ in range(60):
            for one in [*running, *others]:
                one.send(b"x" * 20_000)
            await passed(clock, 0.25)
        assert [one.task.done() for one in running].count(True) == 2, "it keeps its half"
        assert [one.place is not None for one in others].count(True) == 2

    play(scene)


def test_between_two_files_an_upload_gives_way_and_goes_on_afterwards() -> None:
    async def scene(
        places: Places, _clock: HandClock, upload: Callable[[shares.Keys], Upload]
    ) -> None:
        first = upload(A)
        await settle()
        second = upload(A)
        await settle()
        first.send(b"file")
        await settle()
        assert second.place is not None
        assert (places.taken, places.waiting) == (1, 1)
        second.send(b"file")
        await settle()
        first.send(b"", more=False)
        await settle()
        assert first.task.done()
        second.send(b"", more=False)
        await settle()
        assert second.task.done()

    play(scene, total=1)


def test_one_that_gets_no_place_in_time_is_told_to_come_again() -> None:
    async def scene(
        _places: Places, clock: HandClock, upload: Callable[[shares.Keys], Upload]
    ) -> None:
        running = upload(A)
        await settle()
        waits = upload(A)
        for _ in range(130):
            running.send(b"x" * 20_000)
            await passed(clock, 0.25)
        with pytest.raises(Busy):
            await waits.task
        assert not running.task.done()

    play(scene, total=1)


def test_one_that_goes_away_while_it_waits_leaves_the_queue() -> None:
    async def scene(
        places: Places, _clock: HandClock, upload: Callable[[shares.Keys], Upload]
    ) -> None:
        running = upload(A)
        await settle()
        waits = upload(B)
        await settle()
        waits.task.cancel()
        running.send(b"", more=False)
        await settle()
        assert (places.taken, places.waiting) == (0, 0)

    play(scene, total=1)


# -- the pace -------------------------------------------------------------------------------------


def test_the_time_of_our_own_disk_costs_a_client_nothing() -> None:
    async def read() -> None:
        clock = HandClock()
        pace = Pace(clock)
        fresh_s = pace.credit_s

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": clock.passed_s < 100}

        chunks: AsyncIterator[bytes] = body_chunks(receive, clock, 100, pace)
        async with AsyncExitStack():
            clock.passed_s += 1000
            async for _ in chunks:
                pass
        assert pace.credit_s == fresh_s

    asyncio.run(read())


def test_credit_is_bounded_so_that_a_client_that_was_fast_can_become_slow() -> None:
    clock = HandClock()
    pace = Pace(clock)
    pace.count(10**9)
    assert pace.credit_s == 5
