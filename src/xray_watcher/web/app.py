"""Puts the web application together."""

from __future__ import annotations

from collections.abc import Collection

from starlette.applications import Starlette
from starlette.middleware import Middleware

from xray_watcher.clock import Clock
from xray_watcher.config import Settings
from xray_watcher.web import api, pages
from xray_watcher.web.context import WebContext
from xray_watcher.web.gate import Doorman, Gate
from xray_watcher.web.security import SecuredRoute

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def create_app(settings: Settings, clock: Clock) -> Starlette:
    """The application: what every request passes, then the API and the pages."""
    context = WebContext(settings, clock)
    routes = [*api.routes(context), *pages.routes(context)]
    for route in routes:
        assert isinstance(route, SecuredRoute), f"{route} does not say which role it needs"
    return Starlette(
        routes=routes,
        middleware=[Middleware(Gate, hosts=allowed_hosts(settings)), Middleware(Doorman)],
    )


def allowed_hosts(settings: Settings) -> Collection[str]:
    """The exact values of `Host` that are answered: with the port, and without it."""
    web = settings.web
    names = (*_LOOPBACK_NAMES, *web.allowed_hosts)
    return {host for name in names for host in (name, f"{name}:{web.port}")}
