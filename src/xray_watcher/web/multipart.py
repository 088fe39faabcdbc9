"""A multipart body as a stream of events, so that no file is ever held whole."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from xray_watcher.core.form_names import form_name

FILES_FIELD = "files"
"""The field that holds the images."""

_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_EXTENDED = re.compile(r"(utf-?8|iso-8859-1)'[^']*'((?:%[0-9a-f]{2}|[ -$&-~])+)", re.IGNORECASE)
_HEADER_BYTES = 8192
"""The longest line of a part's header."""


class MalformedBody(Exception):
    """The body is no multipart form, or not to its end; the message says so to the client."""


@dataclass(frozen=True, slots=True)
class FileBegin:
    """A file begins; its bytes and a `FileEnd` follow."""

    filename: str


@dataclass(frozen=True, slots=True)
class FileEnd:
    """The file that began is over."""


Event = FileBegin | bytes | FileEnd


def parse_boundary(content_type: str) -> bytes:
    """The boundary that a request's content type names.

    Raises:
        MalformedBody: it is not a multipart form.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary:
        raise MalformedBody(
            "Send the images as multipart/form-data, in the field `files`, as "
            "`curl -F files=@image.jpg` does."
        )
    return str(boundary).encode("latin-1", "replace")


async def events(chunks: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Event]:
    """The files of a body as they come in; parts that are no files are passed over.

    Args:
        boundary: as the content type names it.

    Raises:
        MalformedBody: the body is damaged, cut off, or has headers beyond all measure.
    """
    is_file = False
    try:
        parser = PushMultipartParser(
            boundary, max_header_size=_HEADER_BYTES, header_charset="latin-1"
        )
        async for chunk in chunks:
            for event in parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    filename = _filename(event.header("Content-Disposition", ""))
                    is_file = filename is not None
                    if filename is not None:
                        yield FileBegin(filename)
                elif is_file:
                    yield FileEnd() if event is None else bytes(event)
    except MultipartError as error:
        raise MalformedBody(f"The body is no multipart form: {error}.") from error
    try:
        parser.close()
    except MultipartError as error:
        raise MalformedBody(
            "The body ends before its last boundary: the upload was cut off."
        ) from error


def _filename(disposition: str) -> str | None:
    """The name that a part's header gives its file, "" for none; None where it is no file."""
    _, options = parse_options_header(disposition)
    plain, extended = options.get("filename"), _extended_filename(disposition)
    if not plain and extended is None and (plain is not None or options.get("name") != FILES_FIELD):
        return None
    return extended or form_name((plain or "").encode("latin-1").decode("utf-8", "surrogateescape"))


def _extended_filename(disposition: str) -> str | None:
    """What `filename*` says (RFC 8187): "" if that cannot be read, None if there is none.

    Forms should not have it (RFC 7578, 4.2), and the parser passes it over. But .NET sends the true
    name in it alone, and an encoded word in `filename`.
    """
    found = {key.lower(): value for key, value in _PARAMETER.findall(disposition)}
    if "filename*" not in found:
        return None
    parts = _EXTENDED.fullmatch(found["filename*"].strip().strip('"'))
    try:
        return unquote_to_bytes(parts[2]).decode(parts[1]) if parts else ""
    except UnicodeDecodeError:
        return ""
