"""Who may do what: every route says which role it needs, and one that says nothing is no route.

Without a token file the service listens on loopback alone, and whoever reaches it may do all.
With one, a program sends `Authorization: Bearer TOKEN`; a person signs in on the page `/login`,
whose form posts the field `token` to `/login`, and holds a cookie from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

Role = Literal["anyone", "view", "upload"]
ROLES: tuple[Role, ...] = ("anyone", "view", "upload")
"""Each may do what those before it may."""

Endpoint = Callable[[Request], Awaitable[Response]]


class SecuredRoute(Route):
    """A route that knows which role it needs; the only kind that the application takes.

    Args:
        path: as Starlette has it.
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
    role: Role = request.scope["xray_watcher.role"]
    return role


def may(request: Request, role: Role) -> bool:
    """Whether whoever sent this request may do what needs this role."""
    return ROLES.index(role_of(request)) >= ROLES.index(role)


def _guarded(endpoint: Endpoint, role: Role) -> Endpoint:
    async def guarded(request: Request) -> Response:
        if may(request, role):
            return await endpoint(request)
        return _refused(request, role)

    return guarded


def _refused(request: Request, role: Role) -> Response:
    """Send a person to the sign-in page, tell a program what is missing."""
    is_signed_in = role_of(request) != "anyone"
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/login", status_code=303)
    sentence = (
        f"This needs the role {role}."
        if is_signed_in
        else "Send a token: `Authorization: Bearer TOKEN`, or sign in at /login."
    )
    return error_response(
        403 if is_signed_in else 401,
        "forbidden" if is_signed_in else "token_needed",
        sentence,
        headers={} if is_signed_in else {"WWW-Authenticate": "Bearer"},
    )


def error_response(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error in the one form that all have: `{"error": {"code": ..., "message": ...}}`."""
    return JSONResponse(
        {"error": {"code": code, "message": message}}, status_code=status, headers=headers
    )
