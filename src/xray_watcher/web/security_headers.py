"""What every request passes before any route: who it is for, and where it comes from.

Plain ASGI, so that bodies stream through untouched.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray_watcher.log import log_crash
from xray_watcher.web.authentication import SAFE_METHODS
from xray_watcher.web.refusals import Refused

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


class SecurityHeaders:
    """The outermost layer: security headers, Host allow-list, Origin check, the last resort.

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
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                _add_headers(message)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal.answer(Headers(scope=scope))(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return
        except Exception as error:
            log_crash(error)
            if has_begun:
                raise
            failed = Refused("failed", "Something went wrong here; it is in the log.")
            await failed.answer(Headers(scope=scope))(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Refused | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return Refused(
                "wrong_host", "The service is not known by that name (web.allowed_hosts)."
            )
        if "content-length" in headers and "transfer-encoding" in headers:
            words, closing = "The request says twice how long it is.", {"Connection": "close"}
            return Refused("malformed", words, headers=closing)
        if scope["method"] not in SAFE_METHODS and _is_foreign(headers, hosts[0]):
            return Refused("foreign_origin", "Another site's page may not change anything here.")
        return None


def _add_headers(message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-store")


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a browser says that another site's page made this request."""
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    return any(site not in ("same-origin", "none") for site in sites) or any(
        origin.lower().partition("://")[2] != host.lower() for origin in origins
    )
