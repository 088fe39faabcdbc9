"""A multipart body as a stream of events, so that no file is ever held whole."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from xray_watcher.core.form_names import form_name

FILES_FIELD = "files"
"""The field that holds the images."""

_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_EXTENDED = re.compile(r"(utf-?8|iso-8859-1)'[^']*'((?:%[0-9a-f]{2}|[ -$&-~])+)", re.IGNORECASE)


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


def boundary_of(content_type: str) -> bytes:
    """The boundary that a request's content type names.

    Raises:
        MalformedBody: it is not a multipart form.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedBody(
            "Send the images as multipart/form-data, in the field `files`, as "
            "`curl -F files=@image.jpg` does."
        )
    return boundary


async def events(chunks: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Event]:
    """The files of a body as they come in; parts that are no files are passed over.

    Args:
        chunks: the body.
        boundary: as the content type names it.

    Raises:
        MalformedBody: the body is damaged, cut off, or has headers beyond all measure.
    """
    reader = _Reader(boundary)
    async for chunk in chunks:
        for event in reader.read(chunk):
            yield event
        if reader.damage is not None:  # what came before it is sound
            raise MalformedBody(f"The body is no multipart form: {reader.damage}.")
    if not reader.is_over:
        raise MalformedBody("The body ends before its last boundary: the upload was cut off.")


class _Reader:
    """Turns the parser's callbacks into events; it holds no more than one chunk."""

    def __init__(self, boundary: bytes) -> None:
        self.is_over = False
        self.damage: FormParserError | None = None
        self._events: list[Event] = []
        self._name, self._value = b"", b""
        self._disposition = b""
        self._is_file = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise MalformedBody(f"The boundary cannot be used: {error}.") from error

    def read(self, chunk: bytes) -> list[Event]:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            self.damage = error
        found, self._events = self._events, []
        return found

    def _begin(self) -> None:
        self._disposition = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        disposition = self._disposition.decode("latin-1")
        _, options = parse_options_header(disposition)
        filename, extended = options.get(b"filename"), _extended_filename(disposition)
        self._is_file = (
            bool(filename)
            or extended is not None
            or (filename is None and options.get(b"name") == FILES_FIELD.encode())
        )
        if self._is_file:
            plain = (filename or b"").decode("utf-8", "surrogateescape")
            self._events.append(FileBegin(extended or form_name(plain)))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._events.append(data[start:end])

    def _part_end(self) -> None:
        if self._is_file:
            self._events.append(FileEnd())

    def _end(self) -> None:
        self.is_over = True


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
