"""The parent's side of one child process that makes small pictures of files for people.

The child (`preview_worker`) answers with the rows of a grey PNG. The PNG around them is written
here, so that nothing but checked rows reaches a browser.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xray_watcher.imaging.child import Child
from xray_watcher.imaging.formats import PNG

WORKER_COMMAND = (sys.executable, "-P", "-B", "-m", "xray_watcher.imaging.preview_worker")
"""The program of a child; its arguments follow."""

_GREY_8_BIT = bytes((8, 0, 0, 0, 0))  # bit depth, colour type, and no choice in the rest
_FILTERS = frozenset(range(5))


@dataclass(frozen=True, slots=True)
class Preview:
    """A small picture, and the hash of the file that it was made of."""

    sha256: bytes
    png: bytes


class PreviewChild(Child[Preview]):
    """A child that makes pictures of one size.

    Args:
        command: the program and its arguments.
        side: the longer side of its pictures, in pixels.
    """

    def __init__(self, command: Sequence[str], side: int) -> None:
        super().__init__(command)
        self._side = side

    def _result(self, answer: dict[str, Any], deadline: float) -> Preview:
        sha256 = bytes.fromhex(self._text(answer, "sha256"))
        width = self._checked_number(answer, "width", 1, self._side)
        height = self._checked_number(answer, "height", 1, self._side)
        content_bytes = (width + 1) * height
        deflated = bytes(self._frame(2 * content_bytes + 1024, deadline))
        _check_rows(deflated, width, content_bytes)
        return Preview(sha256, write_png(width, height, deflated))


def write_png(width: int, height: int, deflated: bytes) -> bytes:
    """A PNG in 8 bits of grey around rows that are filtered and deflated already."""
    header = struct.pack(">II", width, height) + _GREY_8_BIT
    chunks = ((b"IHDR", header), (b"IDAT", deflated), (b"IEND", b""))
    return PNG.signature + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _check_rows(deflated: bytes, width: int, content_bytes: int) -> None:
    """Refuse what is not exactly the promised rows: nothing else reaches a browser's decoder."""
    inflating = zlib.decompressobj()
    try:
        rows = inflating.decompress(deflated, content_bytes + 1)
    except zlib.error:
        raise ValueError("rows") from None
    whole = len(rows) == content_bytes and inflating.eof and not inflating.unused_data
    if not whole or not _FILTERS.issuperset(rows[:: width + 1]):
        raise ValueError("rows")
