"""Connections: how many there may be, which are closed, and refusals before a request is read.

A connection is counted when it is made. Over a limit, of all or of one address, the connection
that has been idle longest closes. It is one of the address with the most idle connections.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from xray_watcher.web.refusals import Refused
from xray_watcher.web.security_headers import SECURITY_HEADERS
from xray_watcher.web.slots import address_key, is_local

HEAD_S = 15.0
"""A connection on which no whole head of a request has come in for this long is closed."""

DRAIN_S = 60.0
"""What a client still sends after its request was refused is read and dropped for this long."""

STALL_S = 60.0
TAKEN_BYTES = 60_000
"""A client for which much waits has to take at least this much from one check to the next."""

CONNECTION = "connection"
"""Under this name a request's state has a weak reference to its connection."""


class Connections:
    """The connections that there are.

    Args:
        total: most of them; one address but this machine's own may have half.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._all: dict[TimedProtocol, None] = {}

    @property
    def taken(self) -> int:
        """How many there are."""
        return len(self._all)

    def admit(self, new: TimedProtocol) -> bool:
        """Count a connection; False when there is no room, and none can be made."""
        self._all[new] = None
        mine = [one for one in self._all if one.address == new.address]
        is_over_its_half = not new.is_local and len(mine) > self.total // 2
        if not is_over_its_half and self.taken <= self.total:
            return True
        idle = [one for one in (mine if is_over_its_half else self._all) if one.idle_since_s]
        if not idle:
            self.remove(new)
            return False
        most = Counter(one.address for one in idle).most_common(1)[0][0]
        victim = min(
            (one for one in idle if one.address == most), key=lambda one: one.idle_since_s or 0
        )
        self.remove(victim)
        victim.cut_off()
        return True

    def remove(self, gone: TimedProtocol) -> None:
        """Count it no longer; once is enough."""
        self._all.pop(gone, None)


class _Patient:
    """A transport whose close waits until its client has sent all, and so can read the answer.

    A connection that is closed while its client sends is reset: a proxy then drops the answer and
    says 502.

    Attributes:
        is_ending: everything is said, and what still comes in is of no use.
    """

    def __init__(self, transport: asyncio.Transport, is_sent_more: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_sent_more = is_sent_more
        self.is_ending = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close, or say that nothing follows where the client still sends; a second call closes."""
        if self._is_sent_more() and not self.is_ending:
            self.is_ending = True
            with suppress(OSError):  # the client has gone meanwhile
                self._transport.write_eof()
                return
        self._transport.close()


class TimedProtocol(H11Protocol):
    """Closes connections whose client does not get on, with a request's head or with the answer.

    The body of an upload has a pace of its own (`limits.body_chunks`).

    Attributes:
        address: key of the other side.
        is_local: whether the other side is on this machine, as a proxy is.
        idle_since_s: since when no request has been at work on it; None while one is.
    """

    address = ""
    is_local = False
    idle_since_s: float | None = None

    _is_patient = True
    _timer: asyncio.TimerHandle | None = None
    _next_check: asyncio.TimerHandle | None = None
    _was_waiting: int | None = None
    _paused_since_s: float | None = None

    def __init__(self, *more: Any, shared: Connections, **named: Any) -> None:
        super().__init__(*more, **named)
        self._shared = shared
        # Each request gets a copy. It holds the connection weakly, for that one holds the request.
        self.app_state = {**self.app_state, CONNECTION: weakref.ref(self)}

    # -- what asyncio and uvicorn call --------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or refuse it."""
        super().connection_made(transport)
        self._patient = _Patient(transport, self._is_sent_more)
        self.transport = cast(asyncio.Transport, self._patient)
        host = self.client[0] if self.client else ""
        self.address, self.is_local = address_key(host), is_local(host)
        self._watch()
        self._check_later()
        if not self._shared.admit(self):
            self._refuse(Refused("full", "Every connection is at work; come again in a moment."))

    def data_received(self, data: bytes) -> None:
        """Read; the time runs until a head is whole."""
        if self.transport.is_closing():
            return
        if self._patient.is_ending:
            self._unset_keepalive_if_required()  # it is the time of `_watch` that runs
            return
        super().data_received(data)
        self._watch()

    def shutdown(self) -> None:
        """End it, or have it end when its request is answered."""
        self._is_patient = False
        super().shutdown()

    def on_response_complete(self) -> None:
        """Wait for the next request, or drop what is still sent."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no longer."""
        self._shared.remove(self)
        super().connection_lost(exc)
        self._unwatch()
        if self._next_check is not None:
            self._next_check.cancel()

    def pause_writing(self) -> None:
        """The client does not take what is sent."""
        super().pause_writing()
        self._paused_since_s = self.loop.time()

    def resume_writing(self) -> None:
        """It has taken some."""
        super().resume_writing()
        self._was_waiting = self._paused_since_s = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in our own form."""
        del msg  # says as little
        self._refuse(Refused("malformed", "This is no HTTP request that can be read."))

    # -- what others ask of it ----------------------------------------------------------------

    def stalled_s(self) -> float:
        """For how long the client has taken nothing of an answer that waits for it; seconds."""
        since_s = self._paused_since_s
        return 0.0 if since_s is None else self.loop.time() - since_s

    def cut_off(self) -> None:
        """End it at once; the kernel keeps nothing of it for a client that does not read."""
        at_once = struct.pack("ii", 1, 0)
        there = self.transport.get_extra_info("socket")
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.transport.abort()

    def _is_sent_more(self) -> bool:
        """Whether the client has been answered before it had sent all."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or not self._is_patient:
            return False
        return cycle.response_complete and cycle.more_body

    # -- time ---------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Let the time run while no request is in work, and only then."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._unwatch()
        elif self._timer is None:
            was_answered = cycle is not None and cycle.more_body
            self.idle_since_s = self.loop.time()
            self._timer = self.loop.call_later(DRAIN_S if was_answered else HEAD_S, self._close)

    def _unwatch(self) -> None:
        self.idle_since_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._timer = None
        self._is_patient = False
        if not self.transport.is_closing():
            self.transport.close()

    def _check_later(self) -> None:
        self._next_check = self.loop.call_later(STALL_S, self._check_stall)

    def _check_stall(self) -> None:
        """Cut off a client that holds us up, and has taken next to nothing since the last check.

        An answer waits without limit while writing is paused, and so does the end of a connection
        for what is still to be written, whoever has closed it.
        """
        is_held_up = self.flow.write_paused or self.transport.is_closing()
        waiting = _waiting_bytes(self.transport) if is_held_up else None
        if waiting and self._was_waiting is not None and self._was_waiting - waiting < TAKEN_BYTES:
            self.cut_off()
        else:
            self._was_waiting = waiting
            self._check_later()

    def _refuse(self, refusal: Refused) -> None:
        """Say so, unless an answer has begun, and close."""
        if self.cycle is not None:  # whoever works on it is to send no more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = refusal.json()
            is_to_head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
            more = SECURITY_HEADERS | {"Cache-Control": "no-store", "Connection": "close"}
            headers = [(name.encode(), value.encode()) for name, value in more.items()]
            for event in (
                h11.Response(
                    status_code=refusal.status,
                    headers=[*answer.raw_headers, *headers],
                    reason=HTTPStatus(refusal.status).phrase.encode(),
                ),
                h11.Data(data=b"" if is_to_head else bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _waiting_bytes(transport: asyncio.Transport) -> int:
    """What a client has not taken: of ours, and of what the kernel holds for it.

    The kernel takes more of ours only when a third of its own is gone: that may be a megabyte, for
    which a slow reader needs longer than we wait.
    """
    in_kernel = fcntl.ioctl(transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)
