"""Downloads one large file over HTTP, so that a cut or stalled connection costs little."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from xray_watcher import __version__
from xray_watcher.core.naming import one_line
from xray_watcher.errors import WeightsError

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and the bytes in all if they are known."""

MAX_BYTES = 1 << 30
TRIES = 3
TIMEOUT_S = 30.0
"""Longest silence of a server, when connecting and between two pieces."""

_CHUNK_BYTES = 1 << 16
_RANGE_NOT_SATISFIABLE = 416
_REASON_CHARS = 100
_PARTIAL = 206


class _Cut(Exception):
    """The connection ended early; what is there is worth keeping."""


@dataclass(frozen=True, slots=True)
class _PartialFile:
    """The file being downloaded, and a note that shows whether the download may continue."""

    path: str

    @property
    def note(self) -> str:
        return f"{self.path}.json"

    def size(self) -> int:
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0

    def validator(self, url: str) -> str | None:
        """The ETag or date under which the server gave the part; None: begin anew."""
        try:
            with open(self.note, encoding="utf-8") as file:
                note = json.load(file)
        except (OSError, ValueError):
            return None
        return note.get("validator") if note.get("url") == url else None

    def remember(self, url: str, validator: str | None) -> None:
        with open(self.note, "w", encoding="utf-8") as file:
            json.dump({"url": url, "validator": validator}, file)

    def drop(self) -> None:
        for path in (self.path, self.note):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def download(
    url: str,
    path: str,
    *,
    expected_bytes: int | None,
    progress: Progress | None = None,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Download a file; a part that an earlier try left is gone on with.

    Args:
        url: http or https.
        path: where the file goes.
        expected_bytes: size of the file, if it is known.
        progress: called with the progress.
        timeout_s: longest silence of the server.

    Raises:
        WeightsError: it cannot be had, or is something else. A part that was cut stays, with
            its note beside it; anything that proved wrong is removed.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise WeightsError(f"{url} cannot be downloaded: only http and https addresses can.")
    part = _PartialFile(path)
    try:
        for left in range(TRIES - 1, -1, -1):
            try:
                _one_try(url, part, expected_bytes, progress, timeout_s)
            except _Cut as cut:
                if not left:
                    raise WeightsError(
                        f"The download from {url} was cut {TRIES} times ({cut}). "
                        f"{part.size()} bytes are kept; run the command again to go on there."
                    ) from None
            else:
                break
    except OSError as error:
        part.drop()
        raise WeightsError(
            f"The download cannot be written to {path} ({error.strerror or error}). Make room or "
            "give this user write permission there; nothing was left behind."
        ) from error
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part.note)


def _one_try(
    url: str,
    part: _PartialFile,
    expected_bytes: int | None,
    progress: Progress | None,
    timeout_s: float,
) -> None:
    with _open(url, part, timeout_s) as response:
        _check_is_file(url, response)
        start = part.size() if response.status == _PARTIAL else 0
        total = _total(response, start)
        limit = expected_bytes or MAX_BYTES
        if expected_bytes is not None and total is not None and total != expected_bytes:
            part.drop()
            raise WeightsError(f"{url} has {total} bytes, not the {expected_bytes} it should have.")
        part.remember(url, response.headers.get("ETag") or response.headers.get("Last-Modified"))
        with open(part.path, "ab" if start else "wb") as file:
            note = (lambda size: progress(size, total)) if progress else (lambda _size: None)
            size = _received(response, file, start, limit, note)
    if size > limit:
        part.drop()
        raise WeightsError(f"{url} sends more than the {limit} bytes it should have.")
    if size < (expected_bytes or total or 0):
        raise _Cut(f"{size} of {expected_bytes or total} bytes came")


def _open(url: str, part: _PartialFile, timeout_s: float) -> Any:
    """Ask for the file, or for the rest of it if the server still has the same.

    Raises:
        WeightsError: the server refuses or cannot be reached.
        _Cut: it does not answer in time.
    """
    headers = {"User-Agent": f"xray-watcher/{__version__}", "Accept-Encoding": "identity"}
    validator = part.validator(url)
    if validator and part.size():
        headers |= {"Range": f"bytes={part.size()}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme is checked
    try:
        return _OPENER.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        part_is_wrong = error.code == _RANGE_NOT_SATISFIABLE
        error.close()
        if part_is_wrong:
            part.drop()
            raise _Cut("the part that was there does not fit") from None
        raise WeightsError(
            f"{url} cannot be downloaded: the server says {error.code} {_shortened(error.reason)}."
        ) from None
    except TimeoutError:
        raise _Cut(f"the server was silent for {timeout_s:g} s") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _Cut(f"the server was silent for {timeout_s:g} s") from None
        raise WeightsError(
            f"{url} cannot be reached ({error.reason}). On a server without internet bring the "
            "file and use `xray-watcher weights import FILE`."
        ) from None
    except (http.client.HTTPException, ConnectionError) as error:
        raise _Cut(type(error).__name__) from None


def _shortened(reason: str) -> str:
    """What a server says of itself, on one line of bearable length."""
    return one_line(reason[:_REASON_CHARS])


def _check_is_file(url: str, response: Any) -> None:
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise WeightsError(
            f"{url} gives a web page instead of the file: probably a proxy's or a login page. Ask "
            "for access, or bring the file and use `xray-watcher weights import FILE`."
        )


def _total(response: Any, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length is not None and length.isdecimal() else None


def _received(response: Any, file: Any, start: int, limit: int, note: Callable[[int], None]) -> int:
    """Write what comes; returns the size of the file, which ends just past the limit."""
    size = start
    try:
        while size <= limit and (chunk := response.read(_CHUNK_BYTES)):
            file.write(chunk)
            size += len(chunk)
            note(size)
    except TimeoutError:
        raise _Cut("the server fell silent") from None
    except (http.client.HTTPException, ConnectionError) as error:
        raise _Cut(type(error).__name__) from None
    return size


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, never to something else than HTTP and never from https to http."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Refuse a redirect that leads astray."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise WeightsError(
                f"{req.full_url} leads on to a {after or 'strange'} address, which is not followed."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SafeRedirects)
