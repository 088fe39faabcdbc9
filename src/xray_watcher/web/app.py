"""Puts the web application together."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import Response

from xray_watcher.config.settings import Settings
from xray_watcher.errors import LedgerError, LedgerOutOfReach, Unavailable, UsageError
from xray_watcher.system.clock import Clock
from xray_watcher.web import api, pages
from xray_watcher.web.authentication import TokenBackend
from xray_watcher.web.context import WebContext
from xray_watcher.web.limits import TooLarge, TooSlow
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.refusals import Refused, wants_page
from xray_watcher.web.request_slots import BUSY, RequestSlots
from xray_watcher.web.security import SecuredRoute
from xray_watcher.web.security_headers import SecurityHeaders
from xray_watcher.web.shared_limits import Figures, SharedLimits
from xray_watcher.web.sign_in import SignIn
from xray_watcher.web.slots import Busy
from xray_watcher.web.tokens import Tokens

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

_ERRORS: dict[type[Exception], tuple[str, str]] = {
    LedgerOutOfReach: ("ledger", "The ledger cannot be read at the moment."),
    LedgerError: ("ledger", ""),
    Unavailable: ("unavailable", ""),
    UsageError: ("wrong_request", ""),
    TooLarge: ("too_large", "The request is too large."),
    TooSlow: ("too_slow", ""),
    Busy: ("busy", BUSY),
}
"""Code and sentence of the errors that a route may raise, the first that fits; else their own
message."""


def create_app(
    settings: Settings,
    clock: Clock,
    shared: SharedLimits | None = None,
    former: Tokens | None = None,
) -> Starlette:
    """The application: what every request passes, then the API and the pages.

    Args:
        shared: the limits of an earlier application, if there was one.
        former: the tokens of that one, with who has signed in.

    Raises:
        ConfigError: the token file cannot be used.
    """
    context = WebContext(settings, clock)
    path, tokens = settings.web.token_file, former
    if tokens is None or tokens.path != path:  # sessions by the same file last
        tokens = Tokens(path, clock) if path else None
    backend = TokenBackend(tokens)
    shared = shared or SharedLimits.of(settings.web.uploads_at_once, clock)
    sign_in = SignIn(tokens, clock, shared.forms)
    shown = Pages(context)
    refused = partial(_refused, shown)

    def figures() -> Figures:
        return shared.figures(0 if tokens is None else tokens.sessions)

    routes = [
        *api.routes(context, shared.uploads, shared.batches, figures),
        *pages.routes(shown, shared.streams),
        SecuredRoute("/login", sign_in.sign_in, role="anyone", methods=("POST",)),
        SecuredRoute("/logout", sign_in.sign_out, role="anyone", methods=("POST",)),
    ]
    for route in routes:
        if not isinstance(route, SecuredRoute):
            raise TypeError(f"{route} does not say which role it needs")
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(SecurityHeaders, hosts=allowed_hosts(settings)),
            Middleware(AuthenticationMiddleware, backend=backend),
            Middleware(RequestSlots, requests=shared.requests),
        ],
        exception_handlers=dict.fromkeys((HTTPException, Refused, *_ERRORS), refused),
    )
    # It answers with a whole address, and behind a proxy with TLS that begins with http.
    app.router.redirect_slashes = False
    app.state.shared_limits = shared
    app.state.backend = backend
    app.state.tokens = tokens
    app.state.is_ending = False  # endless streams check it
    return app


def allowed_hosts(settings: Settings) -> Collection[str]:
    """The exact values of `Host` that are answered: with the port, and without it."""
    web = settings.web
    own = f"[{web.host}]" if ":" in web.host else web.host
    names = (*_LOOPBACK_NAMES, own, *web.allowed_hosts)
    return {host.lower() for name in names for host in (name, f"{name}:{web.port}")}


async def _refused(pages: Pages, request: Request, error: Exception) -> Response:
    """The answer for an error: a page, or JSON."""
    refusal = error if isinstance(error, Refused) else _to_refusal(error)
    if wants_page(request.headers):
        return await pages.refused(request, refusal)
    return refusal.json()


def _to_refusal(error: Exception) -> Refused:
    if isinstance(error, HTTPException):  # the router's
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return Refused("wrong_method", "This cannot be done here.", headers=error.headers)
        return Refused("not_found", "There is nothing under this address.")
    code, sentence = next(_ERRORS[kind] for kind in _ERRORS if isinstance(error, kind))
    return Refused(code, sentence or str(error))
