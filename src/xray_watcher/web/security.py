"""Who may do what: every route says which role it needs, and one that says nothing is no route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote

from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from xray_watcher.web.authentication import Role, sender
from xray_watcher.web.refusals import Refused, wants_page

Endpoint = Callable[[Request], Awaitable[Response]]


class _Index(IntegerConvertor):
    """An index in a path: digits that a 64-bit number can hold."""

    regex = "[0-9]{1,18}"


register_url_convertor("index", _Index())


class SecuredRoute(Route):
    """A route that knows which role it needs; the only kind that the application takes.

    Args:
        path: as Starlette has it; an index in it is `{name:index}`.
        endpoint: an `async def` that answers a request; disk and ledger only in threads.
        role: the least role that may call it.
    """

    def __init__(
        self, path: str, endpoint: Endpoint, *, role: Role, methods: Sequence[str] = ("GET",)
    ) -> None:
        self.role = role
        super().__init__(path, _guarded(endpoint, role), methods=[*methods])


def _guarded(endpoint: Endpoint, role: Role) -> Endpoint:
    async def guarded(request: Request) -> Response:
        if sender(request).may(role):
            return await endpoint(request)
        return _turned_away(request, role)

    return guarded


def _turned_away(request: Request, role: Role) -> Response:
    """Send a person to the sign-in page; refuse a program.

    Raises:
        Refused: whoever sent the request may not do that, or did not say who it is.
    """
    if sender(request).is_authenticated:
        raise Refused("forbidden", f"This needs a token with the role {role}.")
    if request.method == "GET" and wants_page(request.headers):
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(wanted)}", status_code=303)
    raise Refused(
        "token_needed",
        "Send a token: `Authorization: Bearer TOKEN`, or sign in at /login.",
        headers={"WWW-Authenticate": "Bearer"},
    )
