"""Slots: what all clients share is limited in total, and for each holder.

A holder is known by keys: the digest of its token, and its address. The address of this machine is
no key of a token's holder, since every client of a proxy has it. An IPv6 address stands for its
64-bit network, for one machine may have many addresses in it.

Uploads wait in a queue (`UploadSlots`). Everything else (`Slots`) is refused when no slot is free,
or ends the holder of another slot. A slot is counted before anything is awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from xray_watcher.system.clock import Clock

Keys = tuple[str, ...]

SLOT_WAIT_S = 30.0
"""An upload waits this long for a slot before it is refused."""

GIVE_WAY_S = 300.0
"""An upload that gave way between two files waits this long for its next slot."""

POLL_S = 0.25
END_SLOW_S = 0.25
END_LARGE_S = 5.0
"""An upload that has waited `END_SLOW_S` ends a slow one. After `END_LARGE_S` it ends one whose
holder has more than half of the slots."""

SLOW_BYTES_S = 64_000
_FRESH_S, _CREDIT_S = 0.5, 5.0
_STALLED_S = 1.0


class Busy(Exception):
    """No slot is free; the request has to come again later."""


def address_key(address: str) -> str:
    """The key of an address; for IPv6 it is the network's."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return f"address:{address}"
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None and not parsed.is_loopback:
        return f"address:{IPv6Address(int(parsed) >> 64 << 64)}"
    return f"address:{parsed}"


def is_local(address: str) -> bool:
    """Whether an address belongs to this machine, as a proxy's does."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


class Pace:
    """How fast a client sends a body; the time of our own disk does not count.

    A client has a credit of some seconds. Waiting for it uses the credit up. Each byte adds the
    time that it takes at `SLOW_BYTES_S`. A client without credit is slow, and may be ended.
    """

    def __init__(self, clock: Clock) -> None:
        self.is_ended = False
        self._clock = clock
        self._saved_s = _FRESH_S
        self._waits_since_s: float | None = None
        self._timer: asyncio.Timeout | None = None

    @property
    def credit_s(self) -> float:
        """The remaining credit in seconds; below 0 for a slow client."""
        since_s = self._waits_since_s
        return self._saved_s - (0.0 if since_s is None else self._clock.monotonic_s() - since_s)

    @contextmanager
    def waiting(self, timer: asyncio.Timeout) -> Iterator[None]:
        """Use credit up while the client is waited for."""
        self._waits_since_s, self._timer = self._clock.monotonic_s(), timer
        try:
            yield
        finally:
            self._saved_s = self.credit_s
            self._waits_since_s = self._timer = None

    def count(self, size: int) -> None:
        """Add the credit of so many bytes."""
        self._saved_s = min(_CREDIT_S, self._saved_s + size / SLOW_BYTES_S)

    def end(self) -> None:
        """Stop waiting for the client: another one needs its slot."""
        self.is_ended = True
        if self._timer is not None:
            self._timer.reschedule(asyncio.get_running_loop().time())


class Client(Protocol):
    """The other end of a connection."""

    def stalled_s(self) -> float:
        """For how many seconds it has taken nothing of an answer that waits for it."""

    def cut_off(self) -> None:
        """End its connection."""


class Slot:
    """One slot that is taken, or asked for.

    Args:
        client: the connection that can be cut off, if any.

    Attributes:
        pace: of the body that it receives.
        granted: set once an upload has it.
    """

    def __init__(self, keys: Keys, clock: Clock, client: Client | None = None) -> None:
        self.keys = keys
        self.client = client
        self.pace = Pace(clock)
        self.granted = asyncio.Event()

    @property
    def is_ended(self) -> bool:
        """Whether another client needed it."""
        return self.pace.is_ended

    def end(self) -> None:
        """End its holder: another client needs it."""
        self.pace.end()
        if self.client is not None:
            self.client.cut_off()


Victim = Callable[["Slots", Keys], Slot | None]


class Slots:
    """Slots that are taken at once or not at all.

    Args:
        each: limit for one key.
        victim: chooses the slot that is ended when none is free; None refuses the new request.
    """

    def __init__(self, total: int, each: int, clock: Clock, victim: Victim) -> None:
        self.total = total
        self.each = each
        self.all: list[Slot] = []
        self._clock = clock
        self._victim = victim

    @property
    def taken(self) -> int:
        """Number of slots that are taken."""
        return len(self.all)

    def has_room(self, keys: Keys) -> bool:
        """Whether a holder with these keys may take one more."""
        return self.taken < self.total and count_held(self.all, keys) < self.each

    def take(self, keys: Keys, client: Client | None = None) -> Slot:
        """Take a slot; the caller has to `leave` it.

        Raises:
            Busy: no slot is free for these keys.
        """
        if not self.has_room(keys):
            victim = self._victim(self, keys)
            if victim is None:
                raise Busy
            self.leave(victim)
            victim.end()
            if not self.has_room(keys):
                raise Busy
        slot = Slot(keys, self._clock, client)
        self.all.append(slot)
        return slot

    def leave(self, slot: Slot) -> None:
        """Give a slot back; a second call does nothing."""
        if slot in self.all:
            self.all.remove(slot)

    @contextmanager
    def hold(self, keys: Keys) -> Iterator[Slot]:
        """Hold a slot.

        Raises:
            Busy: no slot is free for these keys.
        """
        slot = self.take(keys)
        try:
            yield slot
        finally:
            self.leave(slot)


def count_held(slots: Sequence[Slot], keys: Keys) -> int:
    """How many of the slots the key with the most of them has."""
    return max((sum(key in slot.keys for slot in slots) for key in keys), default=0)


def oldest(slots: Slots, _keys: Keys) -> Slot | None:
    """The slot that was taken first."""
    return slots.all[0]


def longest_stalled(slots: Slots, keys: Keys) -> Slot | None:
    """The slot whose client has been stalled longest, for `_STALLED_S` at least.

    Where these keys are at their own limit, it is one of theirs.
    """
    is_at_limit = count_held(slots.all, keys) >= slots.each
    stalled = [
        (slot.client.stalled_s(), slot)
        for slot in slots.all
        if slot.client is not None and (not is_at_limit or {*slot.keys} & {*keys})
    ]
    longest_s, victim = max(stalled, key=lambda one: one[0], default=(0.0, None))
    return victim if longest_s >= _STALLED_S else None


def newest_of_the_largest(slots: Slots, keys: Keys) -> Slot | None:
    """The newest slot of the largest holder, if that one has two more than these keys."""
    counts = [count_held(slots.all, slot.keys) for slot in slots.all]
    most, mine = max(counts), count_held(slots.all, keys)
    theirs = [slot for slot, count in zip(slots.all, counts, strict=True) if count == most]
    return theirs[-1] if mine < slots.each and mine + 1 < most else None


class UploadSlots:
    """Slots for uploads, with a queue.

    The holder of the fewest slots comes first. Between two files an upload gives way to those that
    wait. A waiting upload ends the slowest one. If its own holder has less than half of the slots,
    it may end an upload of a holder with more than half.
    """

    def __init__(self, total: int, clock: Clock) -> None:
        self.total = total
        self._clock = clock
        self._running: list[Slot] = []
        self._queue: list[Slot] = []

    @property
    def taken(self) -> int:
        """Number of slots that are taken."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of uploads that wait for a slot."""
        return len(self._queue)

    @asynccontextmanager
    async def hold(self, keys: Keys) -> AsyncIterator[Slot]:
        """Wait for a slot and hold it.

        Raises:
            Busy: no slot became free in time.
        """
        slot = Slot(keys, self._clock)
        await self._enter(slot, SLOT_WAIT_S)
        try:
            yield slot
        finally:
            self._leave(slot)

    async def give_way(self, slot: Slot) -> None:
        """Let waiting uploads go first.

        Raises:
            Busy: no slot became free again in time.
        """
        if self._queue:
            self._leave(slot)
            await self._enter(slot, GIVE_WAY_S)

    async def _enter(self, slot: Slot, patience_s: float) -> None:
        slot.granted.clear()
        self._queue.append(slot)
        self._grant()
        try:
            await self._wait(slot, patience_s)
        except BaseException:
            self._leave(slot)
            raise

    async def _wait(self, slot: Slot, patience_s: float) -> None:
        began_s = self._clock.monotonic_s()
        while not slot.granted.is_set():
            waited_s = self._clock.monotonic_s() - began_s
            if waited_s >= patience_s:
                raise Busy
            self._make_room(slot, waited_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(POLL_S, patience_s - waited_s)):
                    await slot.granted.wait()

    def _leave(self, slot: Slot) -> None:
        for slots in (self._running, self._queue):
            if slot in slots:
                slots.remove(slot)
        self._grant()

    def _grant(self) -> None:
        while self._queue and self.taken < self.total:
            first = min(self._queue, key=lambda slot: count_held(self._running, slot.keys))
            self._queue.remove(first)
            self._running.append(first)
            first.granted.set()

    def _make_room(self, waiting: Slot, waited_s: float) -> None:
        """End one upload for another that has waited."""
        going = [slot for slot in self._running if not slot.is_ended]
        slow = [slot for slot in going if slot.pace.credit_s <= 0]
        half = max(1, self.total // 2)
        large = [slot for slot in going if count_held(going, slot.keys) > half]
        if slow and waited_s >= END_SLOW_S:
            min(slow, key=lambda s: (-count_held(self._running, s.keys), s.pace.credit_s)).end()
        elif large and waited_s >= END_LARGE_S and count_held(self._running, waiting.keys) < half:
            min(large, key=lambda slot: slot.pace.credit_s).end()
