"""Puts the web application together."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from xray_watcher.config.settings import Settings
from xray_watcher.errors import LedgerError, Unavailable, UsageError
from xray_watcher.system.clock import Clock
from xray_watcher.web import api, pages
from xray_watcher.web.context import WebContext
from xray_watcher.web.gate import Gate
from xray_watcher.web.limits import TooLarge, TooSlow
from xray_watcher.web.security import Doorman, Refused, SecuredRoute, SignIn, error_response
from xray_watcher.web.tokens import Tokens

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

_ERRORS: dict[type[Exception], tuple[int, str, str]] = {
    LedgerError: (503, "ledger", ""),
    Unavailable: (503, "unavailable", ""),
    sqlite3.Error: (503, "ledger", "The ledger cannot be read at the moment."),
    UsageError: (400, "wrong_request", ""),
    TooLarge: (413, "too_large", "The request is too large."),
    TooSlow: (408, "too_slow", "The request came in too slowly."),
}
"""Status, code and sentence of the errors that a route may raise; else their own message."""


def create_app(settings: Settings, clock: Clock) -> Starlette:
    """The application: what every request passes, then the API and the pages.

    Raises:
        ConfigError: the token file cannot be used.
    """
    context = WebContext(settings, clock)
    tokens = Tokens(settings.web.token_file, clock) if settings.web.token_file else None
    sign_in = SignIn(tokens, clock)
    routes = [
        *api.routes(context),
        *pages.routes(context),
        SecuredRoute("/login", sign_in.sign_in, role="anyone", methods=("POST",)),
        SecuredRoute("/logout", sign_in.sign_out, role="anyone", methods=("POST",)),
    ]
    for route in routes:
        if not isinstance(route, SecuredRoute):
            raise TypeError(f"{route} does not say which role it needs")
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Gate, hosts=allowed_hosts(settings)),
            Middleware(Doorman, tokens=tokens),
        ],
        exception_handlers={
            HTTPException: _told,
            Refused: _refused,
            **dict.fromkeys(_ERRORS, _failed),
        },
    )
    app.state.is_ending = False  # streams without an end of their own look at it
    return app


def allowed_hosts(settings: Settings) -> Collection[str]:
    """The exact values of `Host` that are answered: with the port, and without it."""
    web = settings.web
    own = f"[{web.host}]" if ":" in web.host else web.host
    names = (*_LOOPBACK_NAMES, own, *web.allowed_hosts)
    return {host.lower() for name in names for host in (name, f"{name}:{web.port}")}


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, "not_found", error.detail, {**(error.headers or {})})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.answer()


async def _failed(_request: Request, error: Exception) -> Response:
    kind = next(kind for kind in _ERRORS if isinstance(error, kind))
    status, code, sentence = _ERRORS[kind]
    return error_response(status, code, sentence or str(error))
