"""The chunks of a PNG (PNG 3rd ed., 5.3), found without decoding it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import groupby

from xray_watcher.imaging.formats import PNG

_BEGIN = len(PNG.signature)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (PNG 3rd ed., 6.1)
# First column and row of each pass, and the steps to the next (PNG 3rd ed., 8.1).
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_INFLATE_BYTES = 1 << 16


def find_end(data: bytes) -> int | None:
    """The offset just past IEND; None unless each chunk up to it is whole, checksums included.

    It checks what Pillow's `verify()` does, and the chunks ahead of the pixels too, in one pass.
    """
    view = memoryview(data)
    for kind, begin, end in _chunks(data):
        checksum = int.from_bytes(view[end : end + 4], "big")
        if end + 4 > len(data) or zlib.crc32(view[begin - 4 : end]) != checksum:
            return None
        if kind == b"IEND":
            return end + 4
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each chunk up to IEND, and where its content begins and ends.

    The last one may end beyond the data.
    """
    at, kind = _BEGIN, b""
    while at + 12 <= len(data) and kind != b"IEND":
        kind, begin = data[at + 4 : at + 8], at + 8
        end = begin + int.from_bytes(data[at : at + 4], "big")
        yield kind, begin, end
        at = end + 4


def is_interlaced(data: bytes) -> bool:
    """Whether a PNG's rows come in the seven passes of Adam7."""
    return data[28] == 1


def list_chunk_kinds(data: bytes) -> list[bytes]:
    """The kinds of a whole PNG's chunks; each only once where several follow one another."""
    return [kind for kind, _ in groupby(kind for kind, _, _ in _chunks(data))]


def ends_with_pixels(data: bytes) -> bool:
    """Whether nothing but pixels stands between the first pixels and the end of a whole PNG.

    Metadata may come after them too, such as how the picture is to be turned.
    """
    return list_chunk_kinds(data)[-2:] == [b"IDAT", b"IEND"]


def without_chunks(data: bytes, is_kept: Callable[[bytes, memoryview], bool]) -> bytes:
    """A whole PNG with those chunks alone for which `is_kept`, given kind and content, holds."""
    view = memoryview(data)
    chunks = list(_chunks(data))
    kept = [each for each in chunks if is_kept(each[0], view[each[1] : each[2]])]
    if len(kept) == len(chunks):
        return data
    parts = (view[begin - 8 : end + 4] for _, begin, end in kept)
    return b"".join((view[:_BEGIN], *parts))


def has_all_rows(data: bytes) -> bool:
    """Whether a PNG with sound chunks holds as many bytes of pixels as its header promises.

    A row is one byte for its filter and then its pixels, padded to whole bytes (PNG 3rd ed., 7.2).
    """
    width, height = struct.unpack(">II", data[16:24])
    bits = data[24] * _CHANNELS.get(data[25], 1)
    passes = _ADAM7 if is_interlaced(data) else ((0, 0, 1, 1),)
    promised = 0
    for x, y, x_step, y_step in passes:
        columns, rows = -(-(width - x) // x_step), -(-(height - y) // y_step)
        promised += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    return _has_inflated(data, promised)


def _has_inflated(data: bytes, promised: int) -> bool:
    """Whether the pixel chunks inflate to that many bytes, in little memory."""
    inflating = zlib.decompressobj()
    found = 0
    for kind, begin, end in _chunks(data):
        deflated = data[begin:end] if kind == b"IDAT" else b""
        while deflated and found < promised and not inflating.eof:
            found += len(inflating.decompress(deflated, _INFLATE_BYTES))
            deflated = inflating.unconsumed_tail
    return found >= promised
