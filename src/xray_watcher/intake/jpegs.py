"""Whether a JPEG holds all of the picture that its header promises.

Pillow does not tell: where coded data is missing, libjpeg warns, which Pillow does not pass on, and
the rest of the picture is grey. So the coded data is read once more, at an eighth of the size,
with warnings as errors.
"""

from __future__ import annotations

import re

import simplejpeg

# What libjpeg says of missing or wrong coded data (jerror.h); other complaints are not about that.
_MISSING = re.compile(r"Corrupt JPEG data|Premature end")
_EXTRA = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes")
_MOST_EXTRA_BYTES = 16  # some encoders pad the coded data before a marker
_NO_MEMORY = "Insufficient memory"
_FOUR_INKS = ("CMYK", "YCCK")


def is_complete(data: bytes) -> bool:
    """Tell whether coded data is there for every part of the picture.

    Args:
        data: a JPEG that Pillow could read.

    Raises:
        MemoryError: there is not enough of it to find out.
    """
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(data)
        simplejpeg.decode_jpeg(
            data,
            colorspace="CMYK" if colours in _FOUR_INKS else "GRAY",
            fastdct=True,
            min_height=1,
            min_width=1,
            strict=True,
        )
    except ValueError as error:
        if _NO_MEMORY in str(error):
            raise MemoryError from error
        return not _MISSING.search(str(error)) or _is_padding(str(error))
    return True


def _is_padding(complaint: str) -> bool:
    extra = _EXTRA.search(complaint)
    return extra is not None and int(extra.group(1)) <= _MOST_EXTRA_BYTES
