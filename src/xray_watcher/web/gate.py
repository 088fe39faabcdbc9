"""What every request passes before any route: who it is for, where it comes from, what it may be.

Plain ASGI, so that bodies stream through untouched.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray_watcher.web.security import error_response

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""On every answer. No inline script or style runs, and nothing is loaded from elsewhere."""


class Gate:
    """The outermost layer: security headers, Host allow-list, Origin check.

    Args:
        app: what comes behind.
        hosts: the exact values of `Host` that are answered.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self._hosts or len(headers.getlist("host")) != 1:
            refusal = error_response(
                421,
                "wrong_host",
                "This service does not answer under that name (web.allowed_hosts).",
            )
        elif scope["method"] not in SAFE_METHODS and _is_foreign(headers, host):
            refusal = error_response(
                403, "foreign_origin", "Another site's page may not change anything here."
            )
        else:
            await self._app(scope, receive, send_with_headers)
            return
        await refusal(scope, receive, send_with_headers)


class Doorman:
    """Finds out the role of whoever sent a request.

    Args:
        app: what comes behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the role, for `security.role_of`."""
        if scope["type"] == "http":
            scope["xray_watcher.role"] = self._role(Request(scope))
        await self._app(scope, receive, send)

    def _role(self, _request: Request) -> str:
        return "upload"


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a browser says that another site's page made this request."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != host
