"""Every refusal: one table of codes, one form for programs, one page for people.

A program gets `{"error": {"code": ..., "message": ...}}`. Whoever asks for `text/html`, as a
browser does for a page, gets a page with the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from markupsafe import escape
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response

from xray_watcher.records import NOTICE
from xray_watcher.web.models import Error, ErrorAnswer

CODES: Mapping[str, int] = {
    "malformed": 400,
    "no_files": 400,
    "cut_off": 400,
    "wrong_query": 400,
    "wrong_request": 400,
    "token_needed": 401,
    "forbidden": 403,
    "foreign_origin": 403,
    "not_found": 404,
    "no_picture": 404,
    "wrong_method": 405,
    "too_slow": 408,
    "not_put_back": 409,
    "too_large": 413,
    "too_many_files": 413,
    "wrong_host": 421,
    "busy": 429,
    "too_many_tries": 429,
    "failed": 500,
    "not_running": 503,
    "degraded": 503,
    "stopped": 503,
    "ledger": 503,
    "unavailable": 503,
    "storage": 503,
    "full": 503,
    "no_room": 507,
}
"""The status of HTTP of every code; docs/api.md says what to do about each."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{title} &ndash; xray-watcher</title>
  <link rel="stylesheet" href="/static/style.css">
</head>
<body>
  <main class="width">
    <h1>{title}</h1>
    <p class="lead">{message}</p>
    <p><a href="/">xray-watcher</a>: {notice}</p>
  </main>
</body>
</html>
"""


class Refused(Exception):
    """A request is refused; the error carries the answer.

    Args:
        code: for programs; one of `CODES`.
        message: for people.
        batch: id of images of it that were taken before.
        accepted: number of those.
        headers: more of the answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        batch: str | None = None,
        accepted: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = CODES[code]
        self.code = code
        self.message = message
        self.batch = batch
        self.accepted = accepted
        self.headers = headers
        super().__init__(message)

    @property
    def title(self) -> str:
        """What stands above the sentence on a page."""
        return "Nothing to see" if self.status == HTTPStatus.NOT_FOUND else "That did not work"

    def answer(self, headers: Headers) -> Response:
        """The answer to a request with these headers, without anything but this module's own."""
        return self.page() if wants_page(headers) else self.json()

    def json(self) -> JSONResponse:
        """The answer to a program."""
        error = Error(code=self.code, message=self.message)
        answer = ErrorAnswer(
            error=error, request_id=self.batch, batch=self.batch, accepted=self.accepted
        )
        return JSONResponse(answer.model_dump(exclude_defaults=True), self.status, self.headers)

    def page(self) -> HTMLResponse:
        """The answer to a person, where the pages' own layout is out of reach."""
        text = _PAGE.format(title=self.title, message=escape(self.message), notice=NOTICE)
        return HTMLResponse(text, self.status, self.headers)


def wants_page(headers: Headers) -> bool:
    """Whether whoever sent these headers shows the answer to a person."""
    return "text/html" in headers.get("accept", "").lower()
