"""The child process that makes small grey pictures of files, for people to look at.

Started as `python -m xray_watcher.imaging.preview_worker SIDE` and then the arguments of
`decode_worker`, whose limits and form of answers it shares. What follows a header is the content
of a PNG's IDAT chunk: rows of 8-bit grey, each behind the number of its filter, deflated. The
header has the picture's `width` and `height` and the `sha256` of the file.
"""

from __future__ import annotations

import hashlib
import signal
import sys
import zlib
from functools import partial

import numpy as np
from PIL import Image

from xray_watcher.imaging.decode_worker import Header, main
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode_for_display

_IDLE_SECONDS = 60  # then it ends and its memory is free; the parent starts another when needed
_NICENESS = 5  # behind scoring, but somebody is waiting
_UP = 2  # the filter that keeps the difference to the row above (PNG 3rd ed., 9.2)
_LEVEL = 6


def preview(data: bytes, limits: DecodeLimits, side: int) -> tuple[Header, bytes]:
    """Make the picture of a file, with no side longer than `side` pixels."""
    signal.alarm(_IDLE_SECONDS)
    image = decode_for_display(data, limits)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    header: Header = {
        "width": image.width,
        "height": image.height,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return header, zlib.compress(_filtered(image), _LEVEL)


def _filtered(image: Image.Image) -> bytes:
    pixels = np.asarray(image)
    rows = np.full((image.height, image.width + 1), _UP, np.uint8)
    rows[:, 1:] = np.diff(pixels, axis=0, prepend=np.uint8(0))
    return rows.tobytes()


if __name__ == "__main__":
    signal.alarm(_IDLE_SECONDS)
    main(sys.argv[2:], partial(preview, side=int(sys.argv[1])), _NICENESS)
