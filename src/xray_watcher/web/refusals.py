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

_BY_STATUS = {
    400: ("malformed", "no_files", "cut_off", "wrong_query", "wrong_request"),
    401: ("token_needed",),
    403: ("forbidden", "foreign_origin"),
    404: ("not_found", "no_picture"),
    405: ("wrong_method",),
    408: ("too_slow",),
    409: ("not_put_back",),
    413: ("too_large", "too_many_files"),
    421: ("wrong_host",),
    429: ("busy", "too_many_tries"),
    500: ("failed",),
    503: ("not_running", "degraded", "stopped", "ledger", "unavailable", "storage", "full"),
    507: ("no_room",),
}
CODES = {code: status for status, codes in _BY_STATUS.items() for code in codes}
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
        batch: id of images of it that were taken before.
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
