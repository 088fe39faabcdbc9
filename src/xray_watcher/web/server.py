"""Runs the web application: one process, one event loop, sockets with time-outs."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from functools import partial
from types import FrameType

import structlog
import uvicorn
from starlette.applications import Starlette

from xray_watcher.config.settings import Settings
from xray_watcher.errors import Unavailable
from xray_watcher.log import crashed
from xray_watcher.system.clock import SystemClock
from xray_watcher.system.sandbox import missing_parts
from xray_watcher.web.app import create_app
from xray_watcher.web.connections import TimedProtocol

_QUEUE = 1024
"""Connections that the kernel holds for us; what comes beyond them comes again after a second."""

_AT_ONCE = 64
"""Most that are accepted in one go: each takes a descriptor before it can be refused."""

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
        http=partial(TimedProtocol, shared=app.state.everybodys.connections),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        backlog=_AT_ONCE,
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; more may wait in the kernel than are accepted in one go."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_QUEUE)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._app.state.is_ending = True
        self.handle_exit(number, frame)


class _ToStructlog(logging.Handler):
    """Passes on what the libraries log; what clients sent does not stand in it."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Exception):
            crashed(error)
        else:
            _log.warning("web server", detail=record.getMessage())


def _set_up_logs() -> None:
    # asyncio warns of each write to a client that has just gone.
    for name, level in (("uvicorn.error", logging.WARNING), ("asyncio", logging.ERROR)):
        theirs = logging.getLogger(name)
        theirs.setLevel(level)
        theirs.propagate = False
        theirs.handlers = [_ToStructlog()]
