"""Reads a PNG; a plain one by a decoder in Rust, in a third of Pillow's time.

What it does not take, or complains of, is Pillow's to read or to refuse. It does not compare the
Adler-32 at the end of the compressed data; the CRC-32 of the chunks, which was, covers the same
bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from kornia_rs import io as kornia
from numpy.typing import NDArray
from PIL import Image

from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging import png_chunks
from xray_watcher.imaging.formats import PNG, check_nothing_follows
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.picture import GreyImage
from xray_watcher.imaging.pillow import BYTE, Channel, open_picture, read_channel, read_turn

_NEEDED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"acTL", b"fcTL", b"IEND"))
_NOTHING_ELSE = ([b"IHDR", b"IDAT", b"IEND"], [b"IHDR", b"PLTE", b"IDAT", b"IEND"])
# Others that need not be cut out, by their right size in bytes.
_HARMLESS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}
# Texts that may say how a picture is to be turned, with what stands ahead of a packed one.
_TURNING = {
    b"tEXt": re.compile(rb"Raw profile type exif\0()"),
    b"zTXt": re.compile(rb"Raw profile type exif\0(\0)"),
    b"iTXt": re.compile(rb"XML:com\.adobe\.xmp\0(?:\0.|(\x01\0))[^\0]*\0[^\0]*\0", re.DOTALL),
}
_MOST_UNPACKED = 1 << 20  # bytes; Pillow refuses more
_COPIES = 3  # of the pixels that there must be room for: the result, the decoder's own, and some


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one of Pillow's modes is read, its bytes a pixel and the value that white has in it."""

    decode: Callable[[bytes, tuple[int, int], str], NDArray[Any]]
    channels: str
    bytes: int
    maximum: float


_KINDS: Mapping[str, _Kind] = {
    "L": _Kind(kornia.decode_image_png_u8, "mono", 1, 255.0),
    "RGB": _Kind(kornia.decode_image_png_u8, "rgb", 3, 255.0),
    "I;16": _Kind(kornia.decode_image_png_u16, "mono", 2, 65535.0),
}


def read(data: bytes, limits: DecodeLimits) -> GreyImage:
    """Decode a whole PNG; see `picture.Read`.

    Raises:
        UnreadableImage: it is damaged, too large, too small, or of a kind that is not handled.
    """
    end = PNG.check_end(data, png_chunks.find_end(data))
    content = plain_copy(data)
    with open_picture(content, PNG, limits) as image:
        check_nothing_follows(data, end)
        pixels, (black, white) = _channel(image, content)
        if white != BYTE[1] and limits.deep_range == "observed":
            black = float(pixels.min())
            white = max(float(pixels.max()), black + 1)
        return GreyImage(pixels, black, white, *image.size, turn=read_turn(image))


def _channel(image: Image.Image, content: bytes) -> Channel:
    """One channel of an opened picture that is all there."""
    if "transparency" not in image.info and png_chunks.ends_with_pixels(content):
        found = first_channel(content, image.mode, *image.size)
        if found is not None:
            return found[0], (0.0, found[1])
    image.load()
    _check_rows(image, content)
    return read_channel(image)


def _check_rows(image: Image.Image, content: bytes) -> None:
    """Refuse a PNG that is not all there: Pillow leaves what is missing at one value."""
    width, height = image.size
    last_row = image.crop((0, height - 1, width, height))
    if np.asarray(last_row).any() and not png_chunks.is_interlaced(content):
        return
    if not png_chunks.has_all_rows(content):
        raise UnreadableImage("corrupt", "The PNG is damaged: rows of the picture are missing.")


def plain_copy(data: bytes) -> bytes:
    """The PNG without the metadata that Pillow may refuse, if damaged or large.

    That is no fault of the picture; neither its pixels nor the way it is turned depend on it.

    Args:
        data: a PNG whose chunks are whole.
    """
    return (
        data
        if png_chunks.list_chunk_kinds(data) in _NOTHING_ELSE
        else png_chunks.without_chunks(data, _is_needed)
    )


def _is_needed(kind: bytes, content: memoryview) -> bool:
    form = _TURNING.get(kind)
    if form is None:
        return kind in _NEEDED or _HARMLESS.get(kind) == len(content)
    begins = form.match(content)
    return begins is not None and (not begins[1] or _unpacks(content[begins.end() :]))


def _unpacks(packed: memoryview) -> bool:
    """Whether a packed text can be read, and is not too large for Pillow."""
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, _MOST_UNPACKED)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail


def first_channel(
    data: bytes, mode: str, width: int, height: int
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], float] | None:
    """Grey, or red of a colour picture, as Pillow would decode it.

    Args:
        data: a PNG whose header Pillow could read, without transparency.
        mode: what Pillow calls the kind of its pixels.
        width: in pixels.
        height: likewise.

    Returns:
        uint8 or uint16 `[height, width]` of a picture that is all there, and the value that white
        has in it; None when the decoder has a complaint or not memory enough, or the pixels are
        of another kind (such as four bits each, or colours of 16 bits).
    """
    kind = _KINDS.get(mode)
    if kind is None or not _there_is_memory(_COPIES * kind.bytes * width * height):
        return None
    try:
        pixels = kind.decode(data, (height, width), kind.channels)
    except Exception:  # noqa: BLE001 - it raises nothing narrower
        return None
    return pixels[:, :, 0], kind.maximum


def _there_is_memory(size: int) -> bool:
    """Whether so many bytes can be had: the decoder in Rust ends the process without them."""
    try:
        np.empty(size, np.uint8)  # address space only: nothing is written to it
    except MemoryError:
        return False
    return True
