"""Slots, with clients that are made up and time that is held in the hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from starlette.types import Message

from rig import HandClock
from xray_watcher.web import slots as module
from xray_watcher.web.limits import TooSlow, body_chunks
from xray_watcher.web.slots import (
    Busy,
    Keys,
    Pace,
    Slot,
    Slots,
    UploadSlots,
    address_key,
    count_held,
    is_local,
    longest_stalled,
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
    assert is_local(address) is ours


def test_whoever_has_two_keys_holds_what_the_fuller_one_has() -> None:
    clock = HandClock()
    slots = [Slot(keys, clock) for keys in (("t", "x"), ("u", "x"), ("t", "y"))]
    assert count_held(slots, ("t", "x")) == 2
    assert count_held(slots, ("u",)) == 1
    assert count_held(slots, ("v",)) == count_held(slots, ()) == 0


# -- slots that are taken at once --------------------------------------------------------------


def nobody(_slots: Slots, _keys: Keys) -> None:
    return None


def test_slots_are_bounded_in_all_and_for_each_and_counted_when_they_are_taken() -> None:
    some = Slots(4, 2, HandClock(), nobody)
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
    with some.hold(A):
        assert some.taken == 4
    assert some.taken == 3


def test_of_forms_the_oldest_ends() -> None:
    forms = Slots(2, 2, HandClock(), oldest)
    first, second = forms.take(A), forms.take(A)
    third = forms.take(B)
    assert (first.is_ended, second.is_ended, third.is_ended) == (True, False, False)
    assert forms.taken == 2


def test_of_streams_the_newest_of_whoever_has_most_ends_for_one_with_less() -> None:
    streams = Slots(8, 4, HandClock(), newest_of_the_largest)
    mine, theirs = [streams.take(A) for _ in range(4)], [streams.take(B) for _ in range(4)]
    with pytest.raises(Busy):
        streams.take(A)
    streams.take(C)
    assert [slot.is_ended for slot in mine + theirs].count(True) == 1
    streams.take(C)
    with pytest.raises(Busy):  # nobody has two more than C any longer
        streams.take(C)
    assert streams.taken == 8


class Reader:
    """A client that takes, or does not take, its answer."""

    def __init__(self, stalled_s: float) -> None:
        self.seconds = stalled_s
        self.is_cut_off = False

    def stalled_s(self) -> float:
        return self.seconds

    def cut_off(self) -> None:
        self.is_cut_off = True


def test_of_requests_the_one_ends_whose_client_takes_nothing_for_longest() -> None:
    requests = Slots(4, 2, HandClock(), longest_stalled)
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

    def __init__(self, slots: UploadSlots, clock: HandClock, keys: Keys) -> None:
        self.slot: Slot | None = None
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(slots, clock, keys))

    async def _run(self, slots: UploadSlots, clock: HandClock, keys: Keys) -> None:
        async with slots.hold(keys) as self.slot:
            async for chunk in body_chunks(self.sent.get, clock, 10**9, self.slot.pace):
                if chunk == b"file":
                    await slots.give_way(self.slot)

    def send(self, content: bytes, more: bool = True) -> None:
        self.sent.put_nowait({"type": "http.request", "body": content, "more_body": more})


Scene = Callable[[UploadSlots, HandClock, Callable[[Keys], Upload]], Awaitable[None]]


def play(scene: Scene, total: int = 4) -> None:
    """Play with so many slots."""

    async def playing() -> None:
        clock, uploads = HandClock(), []
        slots = UploadSlots(total, clock)

        def upload(keys: Keys) -> Upload:
            uploads.append(Upload(slots, clock, keys))
            return uploads[-1]

        try:
            await scene(slots, clock, upload)
        finally:
            for one in uploads:
                one.task.cancel()
            await asyncio.gather(*(one.task for one in uploads), return_exceptions=True)
            assert (slots.taken, slots.waiting) == (0, 0)

    asyncio.run(playing())


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def passed(clock: HandClock, seconds: float) -> None:
    """Time passes, a look at a time."""
    for _ in range(int(seconds / module.POLL_S)):
        clock.passed_s += module.POLL_S
        await asyncio.sleep(module.POLL_S / 50)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes 5 ms of real time, and stands for 0.25 s of the clock in the hand."""
    monkeypatch.setattr(module, "POLL_S", 0.25)
    real = asyncio.timeout

    def fifty_times_as_fast(seconds: float | None) -> asyncio.Timeout:
        return real(None if seconds is None else seconds / 50)

    monkeypatch.setattr(module.asyncio, "timeout", fifty_times_as_fast)


def test_whoever_holds_fewest_comes_first() -> None:
    async def scene(
        slots: UploadSlots, _clock: HandClock, upload: Callable[[Keys], Upload]
    ) -> None:
        running = [upload(A) for _ in range(4)]
        await settle()
        again, other = upload(A), upload(B)
        await settle()
        assert (slots.taken, slots.waiting) == (4, 2)
        running[0].send(b"", more=False)
        await settle()
        assert other.slot is not None
        assert again.slot is None

    play(scene)


def test_one_that_waits_ends_the_slowest_within_a_second() -> None:
    async def scene(
        _slots: UploadSlots, clock: HandClock, upload: Callable[[Keys], Upload]
    ) -> None:
        running = [upload(A) for _ in range(4)]
        await settle()
        for number, one in enumerate(running[1:], 1):
            one.send(b"x" * 10_000 * number)
        await passed(clock, 3)
        other = upload(B)
        await passed(clock, 1)
        assert other.slot is not None
        with pytest.raises(TooSlow, match="Others wait"):
            await running[0].task
        assert not any(one.task.done() for one in running[1:])

    play(scene)


def test_one_that_is_fresh_or_fast_is_not_ended_for_another_of_its_holder() -> None:
    async def scene(
        _slots: UploadSlots, clock: HandClock, upload: Callable[[Keys], Upload]
    ) -> None:
        running = [upload(A) for _ in range(4)]
        waits = upload(A)
        for _ in range(40):
            await settle()
            for one in running:
                one.send(b"x" * 20_000)
            await passed(clock, 0.25)
        assert waits.slot is None
        assert not any(one.task.done() for one in running)

    play(scene)


def test_a_fast_one_ends_when_its_holder_has_more_than_half_and_another_waits_long() -> None:
    async def scene(
        _slots: UploadSlots, clock: HandClock, upload: Callable[[Keys], Upload]
    ) -> None:
        running = [upload(A) for _ in range(4)]
        await settle()
        others = [upload(B) for _ in range(3)]
        for _ in range(60):
            for one in [*running, *others]:
                one.send(b"x" * 20_000)
            await passed(clock, 0.25)
        assert [one.task.done() for one in running].count(True) == 2, "it keeps its half"
        assert [one.slot is not None for one in others].count(True) == 2

    play(scene)


def test_between_two_files_an_upload_gives_way_and_goes_on_afterwards() -> None:
    async def scene(
        slots: UploadSlots, _clock: HandClock, upload: Callable[[Keys], Upload]
    ) -> None:
        first = upload(A)
        await settle()
        second = upload(A)
        await settle()
        first.send(b"file")
        await settle()
        assert second.slot is not None
        assert (slots.taken, slots.waiting) == (1, 1)
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
        _slots: UploadSlots, clock: HandClock, upload: Callable[[Keys], Upload]
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
        slots: UploadSlots, _clock: HandClock, upload: Callable[[Keys], Upload]
    ) -> None:
        running = upload(A)
        await settle()
        waits = upload(B)
        await settle()
        waits.task.cancel()
        running.send(b"", more=False)
        await settle()
        assert (slots.taken, slots.waiting) == (0, 0)

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
