"""The sign-in form: a token is changed for a session's cookie."""

from __future__ import annotations

from urllib.parse import parse_qs, quote

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from xray_watcher.system.clock import Clock
from xray_watcher.web.authentication import COOKIE, TLS_COOKIE, sender, session_secret
from xray_watcher.web.limits import SMALL_BODY_BYTES, Rate, body_chunks
from xray_watcher.web.refusals import Refused
from xray_watcher.web.slots import Slots
from xray_watcher.web.tokens import SESSION_S, Holder, Tokens

_TRIES_PER_MINUTE = 10

_log = structlog.get_logger()


class SignIn:
    """The endpoints behind the sign-in form.

    Args:
        tokens: None where nobody needs to sign in.
    """

    def __init__(self, tokens: Tokens | None, clock: Clock, forms: Slots) -> None:
        self._tokens = tokens
        self._clock = clock
        self._forms = forms
        self._tries = Rate(_TRIES_PER_MINUTE, clock)
        self._logged = Rate(_TRIES_PER_MINUTE, clock)

    async def sign_in(self, request: Request) -> Response:
        """Open a session for whoever sends a token."""
        form = await self._form(request)
        if self._tokens is None:
            return _see_other("/")
        holder = self._tokens.holder(form.get("token", "").strip())
        wanted = _local_path(form.get("next", ""))
        if holder is None:
            return self._not_known(request.client.host if request.client else "", wanted)
        if self._logged.allows(holder.name):  # repeated sign-ins do not fill the log
            _log.info("signed in", code="signed_in", client=holder.name)
        response = _see_other(_first_page(holder) if wanted == "/" else wanted)
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

    def _not_known(self, address: str, wanted: str) -> Response:
        """Say so, to whoever tries many tokens only so often.

        Nobody guesses 256 bits: the limit is for the log. It must keep no right token out, for
        behind a proxy all people come from one address.

        Raises:
            Refused: too often.
        """
        if not self._tries.allows(address):
            raise Refused("too_many_tries", "Too many wrong tokens; wait a minute and try again.")
        _log.warning("a wrong token", code="wrong_token", client=address)
        aim = "" if wanted == "/" else f"&next={quote(wanted, safe='')}"
        return _see_other(f"/login?failed=1{aim}")

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
        with self._forms.hold(sender(request).keys) as slot:
            chunks = body_chunks(request.receive, self._clock, SMALL_BODY_BYTES, slot.pace)
            body = b"".join([chunk async for chunk in chunks])
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=16)
        return {name: values[0] for name, values in fields.items()}


def _see_other(path: str) -> Response:
    return RedirectResponse(path, status_code=303)


def _first_page(holder: Holder) -> str:
    """Where somebody can do something: who may not upload looks."""
    return "/" if holder.role == "upload" else "/live"


def _local_path(path: str) -> str:
    """The path if it leads to a page of ours, else the first page."""
    is_local = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if is_local else "/"
