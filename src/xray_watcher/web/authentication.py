"""Who sent a request: the backend of Starlette's AuthenticationMiddleware.

Without a token file the service listens on loopback alone, and whoever reaches it may do all.
With one, a program sends `Authorization: Bearer TOKEN`; a person holds a session's cookie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request, cookie_parser

from xray_watcher.web.slots import Keys, address_key, is_local
from xray_watcher.web.tokens import Holder, Tokens

Role = Literal["anyone", "view", "upload"]
ROLES: tuple[Role, ...] = ("anyone", "view", "upload")
"""Each may do what those before it may."""

COOKIE = "xray-watcher"
TLS_COOKIE = "__Host-xray-watcher"
"""The name where the browser speaks TLS: none but this very host can set it, by TLS.

By plain HTTP, as on a workstation, browsers keep no cookie of that name.
"""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Requester(BaseUser):
    """Whoever sent a request.

    Attributes:
        name: for the log and for limits: a token's name, else an address.
        keys: what it takes of shared limits is counted by these.
    """

    role: Role
    name: str
    keys: Keys

    @property
    def is_authenticated(self) -> bool:
        """Whether it may do more than anyone."""
        return self.role != "anyone"

    def may(self, role: Role) -> bool:
        """Whether it may do what needs this role."""
        return ROLES.index(self.role) >= ROLES.index(role)


def sender(request: HTTPConnection) -> Requester:
    """Whoever sent this request."""
    found: Requester = request.user
    return found


class TokenBackend(AuthenticationBackend):
    """Finds out who sent a request by its token or its session's cookie.

    Args:
        tokens: None where whoever reaches the service may do all.
    """

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        """The roles, and the sender; a token that is not known makes nobody of it."""
        found = self.identify(conn)
        return AuthCredentials(ROLES[: ROLES.index(found.role) + 1]), found

    def identify(self, conn: HTTPConnection) -> Requester:
        """Whoever sends this now: a token's line may be changed, and a session ends."""
        address = conn.client.host if conn.client else ""
        where = address_key(address)
        if self._tokens is None:
            return Requester("upload", address, (where,))
        holder = _holder(conn.headers, conn.scope["method"], self._tokens)
        if holder is None:
            return Requester("anyone", address, (where,))
        token = f"token:{holder.digest.hex()}"
        # A local address is the proxy's, and so that of all its clients.
        keys = (token,) if is_local(address) else (token, where)
        return Requester(holder.role, holder.name, keys)


def may_still(request: Request) -> bool:
    """Whether whoever sent this request would be let in with the same role now.

    A stream without an end of its own asks again and again.
    """
    backend: TokenBackend = request.app.state.backend
    return backend.identify(request).may(sender(request).role)


def _holder(headers: Headers, method: str, tokens: Tokens) -> Holder | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":  # any other is for a proxy before us, which passes it on
        return tokens.holder(token.strip())
    secret = session_secret(headers)
    if secret is None:
        return None
    # A browser adds the cookie to whatever a page asks for: it must say that the page is ours.
    # What it says was compared in the gate.
    if method not in SAFE_METHODS and not {"origin", "sec-fetch-site"} & {*headers}:
        return None
    return tokens.session_holder(secret)


def session_secret(headers: Headers) -> str | None:
    """The secret that the session's cookie holds; the one of TLS alone, where there is one."""
    # It takes every cookie by itself: one of another application on this host may be anything.
    cookies = cookie_parser(headers.get("cookie", ""))
    return cookies.get(TLS_COOKIE, cookies.get(COOKIE))
