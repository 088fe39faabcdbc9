"""Runs the web application: one process, one event loop, sockets with time-outs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import signal
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from types import FrameType

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from xray_watcher.config.settings import Settings
from xray_watcher.errors import Unavailable
from xray_watcher.log import crashed
from xray_watcher.system.clock import SystemClock
from xray_watcher.system.sandbox import missing_parts
from xray_watcher.web.app import create_app

HEAD_S = 15.0
"""A connection on which no whole head of a request has come in for this long is closed."""

DRAIN_S = 60.0
"""What a client still sends after its request was refused is read and dropped for this long."""

STALL_S = 60.0
TAKEN_BYTES = 60_000
"""A client for which much waits has to take at least this much from one look to the next."""

CONNECTIONS = 256
"""More at a time are told to come again."""

_HEAD_BYTES = 32_768
_GRACE_S = 8  # for answers that are under way when the service ends

_log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Raises:
        ConfigError: the token file cannot be used.
        Unavailable: the address cannot be listened on.
    """
    _set_up_logs()
    app = create_app(settings, SystemClock())
    listening = _listen(settings.web.host, settings.web.port)
    config = uvicorn.Config(
        app,
        http=_TimedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
    )
    _log.info("serving", url=url_of(settings))
    if missing_parts():
        _log.warning("makers of pictures are less confined", missing=missing_parts())
    with listening:
        _Server(config, app).run([listening])
    _log.info("stopped serving")


def url_of(settings: Settings) -> str:
    """Where the pages are found."""
    host = settings.web.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.web.port}"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise Unavailable(
            "web",
            f"The address {host}, port {port}, cannot be listened on ({error.strerror}). "
            "Set web.host and web.port, or end what listens there.",
        ) from error
    return listening


class _Server(uvicorn.Server):
    """Ends in order on a signal, with exit code 0 as `run` does."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._app = app

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {s: signal.signal(s, self._end) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._app.state.is_ending = True
        self.handle_exit(number, frame)


class _TimedProtocol(H11Protocol):
    """Closes connections whose client does not get on, with a request's head or with the answer.

    The body of an upload has a pace of its own (`limits.body_chunks`).
    """

    _timer: asyncio.TimerHandle | None = None
    _next_look: asyncio.TimerHandle | None = None
    _was_waiting: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        self._look_later()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()
        if self._next_look is not None:
            self._next_look.cancel()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._was_waiting = None

    def _watch(self) -> None:
        """Let the time run while no request is in work, and only then."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._unwatch()
        elif self._timer is None:
            was_answered = cycle is not None and cycle.more_body
            self._timer = self.loop.call_later(DRAIN_S if was_answered else HEAD_S, self._close)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _look_later(self) -> None:
        self._next_look = self.loop.call_later(STALL_S, self._look)

    def _look(self) -> None:
        """Cut off a client that holds us up, and has taken next to nothing since the last look.

        An answer waits without limit while writing is paused, and so does the end of a connection
        for what is still to be written, whoever has closed it.
        """
        is_held_up = self.flow.write_paused or self.transport.is_closing()
        waiting = _waiting_bytes(self.transport) if is_held_up else None
        if waiting and self._was_waiting is not None and self._was_waiting - waiting < TAKEN_BYTES:
            _cut_off(self.transport)
        else:
            self._was_waiting = waiting
            self._look_later()


def _waiting_bytes(transport: asyncio.Transport) -> int:
    """What a client has not taken: of ours, and of what the kernel holds for it.

    The kernel takes more of ours only when a third of its own is gone: that may be a megabyte, for
    which a slow reader needs longer than we wait.
    """
    in_kernel = fcntl.ioctl(transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)


def _cut_off(transport: asyncio.Transport) -> None:
    """End a connection at once; the kernel keeps nothing of it for a client that does not read."""
    at_once = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    transport.abort()


class _ToStructlog(logging.Handler):
    """Passes on what the libraries log; what clients sent does not stand in it."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Exception):
            crashed(error)
        else:
            _log.warning("web server", detail=record.getMessage())


def _set_up_logs() -> None:
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes the body
    uvicorns = logging.getLogger("uvicorn.error")
    uvicorns.setLevel(logging.WARNING)
    uvicorns.propagate = False
    uvicorns.handlers = [_ToStructlog()]
