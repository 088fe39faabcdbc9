"""Runs the web application: one process, one event loop, sockets with time-outs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

import structlog
import uvicorn
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from xray_watcher.config.loading import differences
from xray_watcher.config.settings import Settings
from xray_watcher.errors import ConfigError, Unavailable, XrayWatcherError
from xray_watcher.log import log_crash, set_up
from xray_watcher.system.clock import Clock, SystemClock
from xray_watcher.system.sandbox import missing_parts
from xray_watcher.web.app import create_app
from xray_watcher.web.connections import TimedProtocol
from xray_watcher.web.shared_limits import Everybodys

_QUEUE = 1024
"""Connections that the kernel holds for us; what comes beyond them comes again after a second."""

_AT_ONCE = 64
"""Most that are accepted in one go: each takes a descriptor before it can be refused."""

_HEAD_BYTES = 32_768
_GRACE_S = 8  # for answers that are under way when the service ends

_log = structlog.get_logger()


def serve(settings: Settings, load: Callable[[], Settings]) -> None:
    """Answer requests until SIGTERM or SIGINT; SIGHUP makes new settings take effect.

    Args:
        settings: what is in force.
        load: reads and validates all settings anew.

    Raises:
        ConfigError: the token file cannot be used.
        Unavailable: the address cannot be listened on.
    """
    _set_up_logs()
    app = RenewableApp(create_app(settings, SystemClock()))
    listening = _listen(settings.web.host, settings.web.port)
    config = uvicorn.Config(
        app,
        http=partial(TimedProtocol, shared=app.shared.connections),  # type: ignore[arg-type]
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
        _Server(config, app, load, settings).run([listening])
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


class RenewableApp:
    """The application with the settings that are in force.

    A request is answered by the application that it came to. Limits that everybody shares, and
    who has signed in, stay as they are.

    Args:
        app: the first.
    """

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)

    @property
    def shared(self) -> Everybodys:
        """What everybody shares."""
        shared: Everybodys = self._app.state.everybodys
        return shared

    def renew(self, settings: Settings, clock: Clock) -> None:
        """Answer new requests with other settings; in a thread.

        Pages that are kept up to date end, and their browsers ask anew.

        Raises:
            ConfigError: the token file cannot be used.
        """
        former = self._app.state
        shared = former.everybodys.with_uploads(settings.web.uploads_at_once, clock)
        self._app = create_app(settings, clock, shared, former.tokens)
        former.is_ending = True
        gc.collect()  # children of the former one that make pictures end with it

    def end(self) -> None:
        """Let answers without an end of their own end."""
        self._app.state.is_ending = True


class _Server(uvicorn.Server):
    """Ends in order on a signal, with exit code 0 as `run` does, and reloads on SIGHUP."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: RenewableApp,
        load: Callable[[], Settings],
        settings: Settings,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._load = load
        self._settings = settings
        self._is_reload_wanted = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None

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
        if self._reloading is None:
            self._reloading = asyncio.create_task(self._reload_when_wanted())
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    async def _reload_when_wanted(self) -> None:
        while True:
            await self._is_reload_wanted.wait()
            self._is_reload_wanted.clear()
            try:
                await self._reload()
            except XrayWatcherError as error:
                problems = error.problems if isinstance(error, ConfigError) else [str(error)]
                _log.error("configuration not reloaded", problems=list(problems))

    async def _reload(self) -> None:
        """Take new settings, and listen elsewhere if they say so; nothing under way is cut off.

        Raises:
            XrayWatcherError: the settings are wrong, or the address cannot be listened on.
        """
        new, old = await run_sync(self._load), self._settings
        moves = (new.web.host, new.web.port) != (old.web.host, old.web.port)
        listening = _listen(new.web.host, new.web.port) if moves else None
        try:
            await run_sync(self._app.renew, new, SystemClock())
        except BaseException:
            if listening is not None:
                listening.close()
            raise
        set_up(new.log.level)
        self._settings = new
        if listening is not None:
            former = self.servers
            await self.startup([listening])
            for server in former:
                server.close()
        _log.info("configuration reloaded", changed=list(differences(old, new)), url=url_of(new))

    def _hang_up(self) -> None:
        if sys.stdin is not None and sys.stdin.isatty():
            self._end(signal.SIGTERM, None)  # the terminal has gone
        else:
            self._is_reload_wanted.set()

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._app.end()
        self.handle_exit(number, frame)


class _ToStructlog(logging.Handler):
    """Passes on what the libraries log; what clients sent does not stand in it."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Exception):
            log_crash(error)
        else:
            _log.warning("web server", detail=record.getMessage())


def _set_up_logs() -> None:
    # asyncio warns of each write to a client that has just gone.
    for name, level in (("uvicorn.error", logging.WARNING), ("asyncio", logging.ERROR)):
        theirs = logging.getLogger(name)
        theirs.setLevel(level)
        theirs.propagate = False
        theirs.handlers = [_ToStructlog()]
