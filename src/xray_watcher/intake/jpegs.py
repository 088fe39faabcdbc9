"""Reads a JPEG with what libjpeg warns of as an error.

Pillow does not tell: where coded data is missing, libjpeg warns, which Pillow does not pass on, and
the rest of the picture is grey. What only Pillow can read is read once more here, at an eighth of
the size, to hear the warnings.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray

# What libjpeg says of missing or wrong coded data (jerror.h); other complaints are not about that.
_MISSING = re.compile(r"Corrupt JPEG data|Premature end")
_EXTRA = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes")
_MOST_EXTRA_BYTES = 16  # some encoders pad the coded data before a marker
_NO_MEMORY = "Insufficient memory"
_COLOURS = {"L": "GRAY", "RGB": "RGB"}  # by Pillow's mode
_FOUR_INKS = ("CMYK", "YCCK")


def first_channel(data: bytes, mode: str, width: int, height: int) -> NDArray[np.uint8] | None:
    """Grey, or red of a colour picture, as Pillow would decode it, if libjpeg has no complaint.

    Args:
        data: a JPEG whose header Pillow could read.
        mode: what Pillow calls the kind of its pixels.
        width: in pixels, of the file or of what draft mode makes of it (1/2, 1/4 or 1/8).
        height: likewise.

    Returns:
        uint8 `[height, width]`; None when there is a complaint, the size is another, or the pixels
        are of another kind (such as CMYK).

    Raises:
        MemoryError: there is not enough of it.
    """
    colours = _COLOURS.get(mode)
    if colours is None:
        return None
    try:
        pixels = _decoded(data, colours, width, height)
    except ValueError as error:
        if _NO_MEMORY in str(error):
            raise MemoryError from error
        return None
    return pixels[:, :, 0] if pixels.shape[:2] == (height, width) else None


def is_complete(data: bytes) -> bool:
    """Tell whether coded data is there for every part of the picture.

    Args:
        data: a JPEG that Pillow could read.

    Raises:
        MemoryError: there is not enough of it to find out.
    """
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(data)
        _decoded(data, "CMYK" if colours in _FOUR_INKS else "GRAY", 1, 1)
    except ValueError as error:
        if _NO_MEMORY in str(error):
            raise MemoryError from error
        return not _MISSING.search(str(error)) or _is_padding(str(error))
    return True


def _decoded(data: bytes, colours: str, width: int, height: int) -> NDArray[np.uint8]:
    """At the smallest scale that is no smaller than this; complaints of libjpeg are errors."""
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, colorspace=colours, min_width=width, min_height=height, strict=True
    )
    return pixels


def _is_padding(complaint: str) -> bool:
    extra = _EXTRA.search(complaint)
    return extra is not None and int(extra.group(1)) <= _MOST_EXTRA_BYTES
