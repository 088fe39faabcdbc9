"""Shares for everybody: what is everybody's is bounded in all, and for each who takes of it.

Who takes is told by keys: the digest of a token, and the address. The address of this machine is
left out where there is a token, for it is the proxy's, which everybody comes by. An address of IPv6
stands for its network of 64 bits, in which one machine may have as many as it likes.

Uploads wait in a queue (`Places`). All else is refused where there is no room (`Shares`), or makes
room by ending what takes most. A place is counted when it is taken, before anything is waited for.
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
"""An upload waits this long for others to end before it is refused."""

GIVE_WAY_S = 300.0
"""One that gave way between two of its files waits this long until it goes on."""

LOOK_S = 0.25
END_SLOW_S = 0.25
END_LARGE_S = 5.0
"""An upload that has waited for the first ends a slow one; for the second, one of a holder who has
more than half of the places."""

SLOW_BYTES_S = 64_000
_FRESH_S, _CREDIT_S = 0.5, 5.0
_HELD_UP_S = 1.0


class Busy(Exception):
    """So much goes on that this has to come again later."""


def address_key(address: str) -> str:
    """The key of an address: of IPv6 only its network."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return f"address:{address}"
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None and not parsed.is_loopback:
        return f"address:{IPv6Address(int(parsed) >> 64 << 64)}"
    return f"address:{parsed}"


def is_ours(address: str) -> bool:
    """Whether an address is this machine's own, as a proxy's before us is."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


class Pace:
    """How a body comes in while it is waited for; the time of our own disk does not count.

    A client has a credit of some seconds. Waiting for it costs it, and every byte is worth what
    it takes at `SLOW_BYTES_S`. Without credit it is slow, and may be ended when others wait.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self.is_ended = False
        self._clock = clock
        self._saved_s = _FRESH_S
        self._waits_since_s: float | None = None
        self._timer: asyncio.Timeout | None = None

    @property
    def credit_s(self) -> float:
        """What is left of the credit; less than nothing for one that is slow."""
        since_s = self._waits_since_s
        return self._saved_s - (0.0 if since_s is None else self._clock.monotonic_s() - since_s)

    @contextmanager
    def waiting(self, timer: asyncio.Timeout) -> Iterator[None]:
        """The client is waited for."""
        self._waits_since_s, self._timer = self._clock.monotonic_s(), timer
        try:
            yield
        finally:
            self._saved_s = self.credit_s
            self._waits_since_s = self._timer = None

    def count(self, size: int) -> None:
        """So many bytes have come in."""
        self._saved_s = min(_CREDIT_S, self._saved_s + size / SLOW_BYTES_S)

    def end(self) -> None:
        """Others need its place: whoever waits for the client waits no longer."""
        self.is_ended = True
        if self._timer is not None:
            self._timer.reschedule(asyncio.get_running_loop().time())


class Client(Protocol):
    """The other end of a connection."""

    def held_up_s(self) -> float:
        """For how long it has taken nothing of an answer that waits for it; seconds."""

    def cut_off(self) -> None:
        """End its connection."""


class UploadSlot:
    """One place that is taken, or asked for.

    Args:
        keys: of whoever takes it.
        clock: the time.
        client: at the other end, where it may be cut off.

    Attributes:
        pace: of the body that comes in there.
        granted: set once an upload has it.
    """

    def __init__(self, keys: Keys, clock: Clock, client: Client | None = None) -> None:
        self.keys = keys
        self.client = client
        self.pace = Pace(clock)
        self.granted = asyncio.Event()

    @property
    def is_ended(self) -> bool:
        """Whether others needed it."""
        return self.pace.is_ended

    def end(self) -> None:
        """Others need it: whatever holds it is to end."""
        self.pace.end()
        if self.client is not None:
            self.client.cut_off()


Victim = Callable[["Shares", Keys], UploadSlot | None]


class Shares:
    """Places that are taken at once or not at all.

    Args:
        total: of them.
        each: most for one key.
        clock: the time.
        victim: says which place is ended when there is no room; None refuses the newcomer.
    """

    def __init__(self, total: int, each: int, clock: Clock, victim: Victim) -> None:
        self.total = total
        self.each = each
        self.places: list[UploadSlot] = []
        self._clock = clock
        self._victim = victim

    @property
    def taken(self) -> int:
        """How many are taken."""
        return len(self.places)

    def has_room(self, keys: Keys) -> bool:
        """Whether one more may be taken by these."""
        return self.taken < self.total and held(self.places, keys) < self.each

    def take(self, keys: Keys, client: Client | None = None) -> UploadSlot:
        """Take a place; `leave` it in any case.

        Raises:
            Busy: there is none for these.
        """
        if not self.has_room(keys):
            victim = self._victim(self, keys)
            if victim is None:
                raise Busy
            self.leave(victim)
            victim.end()
            if not self.has_room(keys):
                raise Busy
        place = UploadSlot(keys, self._clock, client)
        self.places.append(place)
        return place

    def leave(self, place: UploadSlot) -> None:
        """Give a place back; once is enough."""
        if place in self.places:
            self.places.remove(place)

    @contextmanager
    def place(self, keys: Keys) -> Iterator[UploadSlot]:
        """Hold a place.

        Raises:
            Busy: there is none for these.
        """
        place = self.take(keys)
        try:
            yield place
        finally:
            self.leave(place)


def held(places: Sequence[UploadSlot], keys: Keys) -> int:
    """How many of these places the most frequent of some keys has."""
    return max((sum(key in place.keys for place in places) for key in keys), default=0)


def oldest(shares: Shares, _keys: Keys) -> UploadSlot | None:
    """The place that has been held longest."""
    return shares.places[0]


def longest_held_up(shares: Shares, keys: Keys) -> UploadSlot | None:
    """The place whose client has taken nothing of its answer for longest, and for a while.

    It is one of these keys' own when they have as many as one may have.
    """
    is_full_for_them = held(shares.places, keys) >= shares.each
    held_up = [
        (place.client.held_up_s(), place)
        for place in shares.places
        if place.client is not None and (not is_full_for_them or {*place.keys} & {*keys})
    ]
    longest_s, victim = max(held_up, key=lambda one: one[0], default=(0.0, None))
    return victim if longest_s >= _HELD_UP_S else None


def newest_of_the_largest(shares: Shares, keys: Keys) -> UploadSlot | None:
    """The newest place of whoever holds most, if that is at least two more than these hold."""
    largest = max(shares.places, key=lambda place: held(shares.places, place.keys))
    most = held(shares.places, largest.keys)
    theirs = [p for p in shares.places if held(shares.places, p.keys) == most]
    mine = held(shares.places, keys)
    return theirs[-1] if mine < shares.each and mine + 1 < most else None


class Places:
    """Places for uploads, for which there is a queue.

    Whoever holds fewest comes first. Between two of its files an upload gives way to those that
    wait. One that waits ends the slowest, and, when it holds less than half itself, one of a
    holder with more than half.

    Args:
        total: of them.
        clock: the time.
    """

    def __init__(self, total: int, clock: Clock) -> None:
        self.total = total
        self._clock = clock
        self._places: list[UploadSlot] = []
        self._queue: list[UploadSlot] = []

    @property
    def taken(self) -> int:
        """How many are taken."""
        return len(self._places)

    @property
    def waiting(self) -> int:
        """How many uploads wait for one."""
        return len(self._queue)

    @asynccontextmanager
    async def place(self, keys: Keys) -> AsyncIterator[UploadSlot]:
        """Hold a place, or wait for one.

        Raises:
            Busy: none got free in time.
        """
        place = UploadSlot(keys, self._clock)
        await self._enter(place, SLOT_WAIT_S)
        try:
            yield place
        finally:
            self._leave(place)

    async def give_way(self, place: UploadSlot) -> None:
        """Let those that wait go first.

        Raises:
            Busy: its turn has not come again for long.
        """
        if self._queue:
            self._leave(place)
            await self._enter(place, GIVE_WAY_S)

    async def _enter(self, place: UploadSlot, patience_s: float) -> None:
        place.granted.clear()
        self._queue.append(place)
        self._grant()
        try:
            await self._wait(place, patience_s)
        except BaseException:
            self._leave(place)
            raise

    async def _wait(self, place: UploadSlot, patience_s: float) -> None:
        began_s = self._clock.monotonic_s()
        while not place.granted.is_set():
            waited_s = self._clock.monotonic_s() - began_s
            if waited_s >= patience_s:
                raise Busy
            self._make_room(place, waited_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, patience_s - waited_s)):
                    await place.granted.wait()

    def _leave(self, place: UploadSlot) -> None:
        for places in (self._places, self._queue):
            if place in places:
                places.remove(place)
        self._grant()

    def _grant(self) -> None:
        while self._queue and self.taken < self.total:
            first = min(self._queue, key=lambda place: held(self._places, place.keys))
            self._queue.remove(first)
            self._places.append(first)
            first.granted.set()

    def _make_room(self, waiting: UploadSlot, waited_s: float) -> None:
        """End one that stands in the way of one that has waited."""
        running = [place for place in self._places if not place.is_ended]
        slow = [place for place in running if place.pace.credit_s <= 0]
        half = max(1, self.total // 2)
        large = [place for place in running if held(running, place.keys) > half]
        if slow and waited_s >= END_SLOW_S:
            victim = min(slow, key=lambda p: (-held(self._places, p.keys), p.pace.credit_s))
        elif large and waited_s >= END_LARGE_S and held(self._places, waiting.keys) < half:
            victim = min(large, key=lambda place: place.pace.credit_s)
        else:
            return
        victim.end()
