"""Who may do what: every route says which role it needs, and one that says nothing is no route.

Without a token file the service listens on loopback alone, and whoever reaches it may do all.
With one, a program sends `Authorization: Bearer TOKEN`; a person signs in on the page `/login`,
whose form posts the field `token` to `/login`, and holds a cookie from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal
from urllib.parse import parse_qs, quote

import structlog
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from xray_watcher.system.clock import Clock
from xray_watcher.web.limits import SMALL_BODY_BYTES, Rate, body_chunks
from xray_watcher.web.refusals import Refused, wants_page
from xray_watcher.web.shares import Busy, Keys, Shares, address_key, is_ours
from xray_watcher.web.tokens import SESSION_S, Holder, Tokens

Role = Literal["anyone", "view", "upload"]
ROLES: tuple[Role, ...] = ("anyone", "view", "upload")
"""Each may do what those before it may."""

COOKIE = "xray-watcher"
TLS_COOKIE = "__Host-xray-watcher"
"""The name where the browser speaks TLS: none but this very host can set it, by TLS.

By plain HTTP, as on a workstation, browsers keep no cookie of that name.
"""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_ROLE, _WHO = "xray_watcher.role", "xray_watcher.who"
_TAKERS = "xray_watcher.takers"
_IDENTIFY = "xray_watcher.identify"
_TRIES_PER_MINUTE = 10

BUSY = "You have your share of what everybody uses, or all of it is taken; come again in a minute."

_log = structlog.get_logger()

Endpoint = Callable[[Request], Awaitable[Response]]


class _Index(Convertor[int]):
    """An index in a path: digits that a 64-bit number can hold."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("index", _Index())


class SecuredRoute(Route):
    """A route that knows which role it needs; the only kind that the application takes.

    Args:
        path: as Starlette has it; an index in it is `{name:index}`.
        endpoint: an `async def` that answers a request; disk and ledger only in threads.
        role: the least role that may call it.
        methods: of HTTP.
    """

    def __init__(
        self, path: str, endpoint: Endpoint, *, role: Role, methods: Sequence[str] = ("GET",)
    ) -> None:
        self.role = role
        super().__init__(path, _guarded(endpoint, role), methods=[*methods])


def role_of(request: Request) -> Role:
    """The role of whoever sent this request."""
    role: Role = request.scope[_ROLE]
    return role


def who(request: Request) -> str:
    """Whoever sent this request, for the log and for limits: a token's name, else an address."""
    name: str = request.scope[_WHO]
    return name


def takers(request: Request) -> Keys:
    """By what keys is counted what the sender of this request takes of everybody's."""
    keys: Keys = request.scope[_TAKERS]
    return keys


def may(request: Request, role: Role) -> bool:
    """Whether whoever sent this request may do what needs this role."""
    return ROLES.index(role_of(request)) >= ROLES.index(role)


def may_still(request: Request) -> bool:
    """Whether whoever sent this request would be let in with the same role now.

    A stream without an end of its own asks again and again: a token's line may be removed or
    changed, and a session ends.
    """
    identify: Callable[[], tuple[Role, str, Keys]] = request.scope[_IDENTIFY]
    return ROLES.index(identify()[0]) >= ROLES.index(role_of(request))


def _guarded(endpoint: Endpoint, role: Role) -> Endpoint:
    async def guarded(request: Request) -> Response:
        if may(request, role):
            return await endpoint(request)
        return _turned_away(request, role)

    return guarded


def _turned_away(request: Request, role: Role) -> Response:
    """Send a person to the sign-in page, tell a program what is missing.

    Raises:
        Refused: whoever sent the request may not do that, or did not say who it is.
    """
    if role_of(request) != "anyone":
        raise Refused("forbidden", f"This needs a token with the role {role}.")
    if request.method == "GET" and wants_page(request.headers):
        return RedirectResponse(f"/login?next={quote(request.url.path)}", status_code=303)
    raise Refused(
        "token_needed",
        "Send a token: `Authorization: Bearer TOKEN`, or sign in at /login.",
        headers={"WWW-Authenticate": "Bearer"},
    )


class Doorman:
    """Finds out who sent a request, for `role_of`, `who` and `may_still`.

    Args:
        app: what comes behind.
        tokens: None where whoever reaches the service may do all.
        requests: places for those that are at work.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens | None, requests: Shares) -> None:
        self._app = app
        self._tokens = tokens
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note who it is, and pass the request on when it may have a place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""
        headers = Headers(scope=scope)
        # Not the scope itself: it would hold a callable that holds it.
        identify = partial(self._identified, headers, scope["method"], address)
        scope[_ROLE], scope[_WHO], scope[_TAKERS] = identify()
        scope[_IDENTIFY] = identify
        connection = scope.get("state", {}).get("connection", lambda: None)()
        try:
            place = self._requests.take(scope[_TAKERS], connection)
        except Busy:
            # What else stands in the pipeline is not worked on.
            busy = Refused("busy", BUSY, headers={"Connection": "close"})
            await busy.answer(headers)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests.leave(place)

    def _identified(self, headers: Headers, method: str, address: str) -> tuple[Role, str, Keys]:
        where = address_key(address)
        if self._tokens is None:
            return "upload", address, (where,)
        holder = _holder(headers, method, self._tokens)
        if holder is None:
            return "anyone", address, (where,)
        token = f"token:{holder.digest.hex()}"
        # An address of this machine is the proxy's, by which everybody comes.
        return holder.role, holder.name, (token,) if is_ours(address) else (token, where)


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


class SignIn:
    """The endpoints behind the sign-in form.

    Args:
        tokens: None where nobody needs to sign in.
        clock: the time.
        forms: places for those that are read.
    """

    def __init__(self, tokens: Tokens | None, clock: Clock, forms: Shares) -> None:
        self._tokens = tokens
        self._clock = clock
        self._forms = forms
        self._tries = Rate(_TRIES_PER_MINUTE, clock)
        self._told = Rate(_TRIES_PER_MINUTE, clock)

    async def sign_in(self, request: Request) -> Response:
        """Open a session for whoever sends a token."""
        form = await self._form(request)
        if self._tokens is None:
            return _see_other("/")
        holder = self._tokens.holder(form.get("token", "").strip())
        if holder is None:
            return self._not_known(request.client.host if request.client else "")
        if self._told.allows(holder.name):  # who signs in without end does not fill the log
            self._told.count(holder.name)
            _log.info("signed in", client=holder.name)
        response = _see_other(_local_path(form.get("next", "/")))
        # Behind a proxy we speak HTTP; the browser says what it speaks.
        is_tls = request.headers.get("origin", "").lower().startswith("https://")
        response.set_cookie(
            TLS_COOKIE if is_tls else COOKIE,
            self._tokens.open_session(holder),
            max_age=int(SESSION_S),
            secure=is_tls,
            httponly=True,
            samesite="strict",
        )
        return response

    def _not_known(self, address: str) -> Response:
        """Say so, to whoever tries many tokens only so often.

        Nobody guesses 256 bits: the limit is for the log. It must keep no right token out, for
        behind a proxy all people come from one address.

        Raises:
            Refused: too often.
        """
        if not self._tries.allows(address):
            raise Refused("too_many_tries", "Too many wrong tokens; wait a minute and try again.")
        self._tries.count(address)
        _log.warning("a wrong token", client=address)
        return _see_other("/login?failed=1")

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        secret = session_secret(request.headers)
        if self._tokens is not None and secret is not None:
            self._tokens.close_session(secret)
        response = _see_other("/login")
        response.delete_cookie(COOKIE)
        response.delete_cookie(TLS_COOKIE, secure=True)
        return response

    async def _form(self, request: Request) -> dict[str, str]:
        with self._forms.place(takers(request)) as place:
            chunks = body_chunks(request.receive, self._clock, SMALL_BODY_BYTES, place.pace)
            body = b"".join([chunk async for chunk in chunks])
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=16)
        return {name: values[0] for name, values in fields.items()}


def _see_other(path: str) -> Response:
    return RedirectResponse(path, status_code=303)


def _local_path(path: str) -> str:
    """The path if it leads to a page of ours, else the first page."""
    is_local = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if is_local else "/"
