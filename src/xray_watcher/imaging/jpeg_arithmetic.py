"""Finds out whether the data of an arithmetic-coded JPEG reaches to the end of the picture.

No decoder can know it: where such data ends early, it reads zeros, and those are codes of a picture
too (ITU-T T.81, D.1.8). But the last bytes of a scan that is whole matter to its last blocks alone.
So they are changed, and where the picture changes is looked at.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_watcher.imaging.jpeg_parts import Frame, Segment, rebuild

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_CHANGED = (2, 4, 8)  # bytes; of the very last ones some may not matter
_AROUND = 2  # rows of pixels beyond a block that smooth upsampling reaches
_NEXT_TO_NOTHING = 64  # bytes of a scan, as of the colours of a grey picture
_SPARSE = 0.8  # of the height: the last bytes of a scan of fine detail may reach as far up


def is_used_up(frame: Frame, segments: Sequence[Segment]) -> bool:
    """Whether the last bytes of each scan matter, and to the end of the picture alone.

    Those of the last scan must not change more than half of the last row of blocks. Those of the
    scans ahead of it, which a progressive picture has, may reach further.

    Some pictures do not pass though they are whole. Where the last rows are of one even colour, a
    few bytes are the code of many blocks, just as when a decoder makes them up. With restarts, each
    stretch between them would have to be changed; nobody is known to write such pictures.

    Args:
        frame: with arithmetic coding.
        segments: as `jpeg_parts.essential` finds them.

    Raises:
        OSError: the picture cannot be decoded.
    """
    scans = [number for number, segment in enumerate(segments) if segment.is_scan]
    if any(_RESTART.search(segments[number].coded) for number in scans):
        return False
    whole = _pixels(rebuild(segments))
    if not _is_near_the_end(_change(whole, segments, scans[-1]), frame):
        return False
    for number in scans[:-1]:
        if len(segments[number].coded) > _NEXT_TO_NOTHING:
            rows = np.flatnonzero(_change(whole, segments, number).any(axis=1))
            if not rows.size or rows[0] < _SPARSE * frame.height:
                return False
    return True


def _is_near_the_end(change: NDArray[np.bool_], frame: Frame) -> bool:
    _, units_down = frame.units()
    top = (units_down - 1) * 8 * max(component.down for component in frame.components)
    last = change[top:]
    return bool(
        last.any() and not last[:, : frame.width // 2].any() and not change[: top - _AROUND].any()
    )


def _change(
    whole: NDArray[np.uint8], segments: Sequence[Segment], number: int
) -> NDArray[np.bool_]:
    """Which pixels are other ones when the last bytes of a scan are; `[height, width]`."""
    others = list(segments)
    for count in _CHANGED:
        others[number] = replace(segments[number], coded=_changed(segments[number].coded, count))
        change: NDArray[np.bool_] = (_pixels(rebuild(others)) != whole).any(axis=2)
        if change.any():
            break
    return change


def _changed(coded: bytes, count: int) -> bytes:
    """With other bytes at its end; a byte of 0xFF has a zero behind it, and is no marker then."""
    plain = coded.rstrip(b"\xff").replace(b"\xff\x00", b"\xff")
    changed = plain[:-count] + bytes(byte ^ 0x55 for byte in plain[-count:])
    return changed.replace(b"\xff", b"\xff\x00")


def _pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image.decodermaxblock = len(data)  # this decoder cannot wait for more
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)
