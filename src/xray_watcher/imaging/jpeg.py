"""Reads a JPEG only when all of its coded data is there.

Pillow does not say it: where coded data is missing, libjpeg warns, which Pillow does not pass on,
and the rest of the picture is grey. So it is read with the warnings as errors. libjpeg stops at
the first, which may be a harmless one; then a copy is made that has nothing but what the pixels
depend on, and that must be read without any.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging import jpeg_arithmetic, jpeg_huffman
from xray_watcher.imaging.formats import JPEG, check_nothing_follows
from xray_watcher.imaging.jpeg_parts import (
    SOI,
    BrokenJpegError,
    Frame,
    Segment,
    essential,
    find_end,
    find_frame,
    find_scanned_frame,
    has_full_detail,
    rebuild,
)
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.picture import GreyImage
from xray_watcher.imaging.pillow import BYTE, Channel, open_picture, read_channel, read_turn
from xray_watcher.imaging.resampling import SIDE

_REDUCED_SIDE = 4 * SIDE  # it is decoded at 1/2, 1/4 or 1/8 as long as this much is left

_NO_MEMORY = "Insufficient memory"
_UNNAMED = "Could not determine subsampling"
# What does not show whether data is missing: bytes before a marker may be padding, and TurboJPEG
# reads no picture whose sampling it has no name for.
_UNDECIDED = re.compile(rf"extraneous bytes before marker|{_UNNAMED}")
_COLOURS = {"L": "GRAY", "RGB": "RGB"}  # by Pillow's mode
# So many bytes are walked in two seconds even where libjpeg has no complaint about the copy: it
# reads up to seven bytes ahead and says nothing when they are left over.
_WALKED_ANYWAY = 1 << 22
_FOUR_INKS = 4  # components
_SEQUENTIAL = (0xC0, 0xC1)  # kinds of frame, with Huffman codes

# libjpeg's quick reader of Huffman codes passes over those that do not exist. It is not used where
# there are restarts; one that is so far away that it never comes makes no other difference.
_RESTART_FAR_AWAY = b"\xff\xdd\x00\x04\xff\xff"
_BLOCKS_BEFORE_RESTART = 0xFFFF


def read(data: bytes, limits: DecodeLimits) -> GreyImage:
    """Decode a whole JPEG, at a reduced size if it is large; see `picture.Read`.

    Raises:
        UnreadableImage: it is damaged, too large, too small, or of a kind that is not handled.
    """
    end = JPEG.check_end(data, find_end(data))
    is_scalable = _checked_frame(data)
    with open_picture(data, JPEG, limits) as image:
        check_nothing_follows(data, end)
        width, height = image.size
        scale = _reduce(image) if is_scalable else 1
        pixels, (black, white) = _channel(image, data)
        return GreyImage(pixels, black, white, width, height, scale, read_turn(image))


def _checked_frame(data: bytes) -> bool:
    """Whether it is of a kind that decoders can make smaller; others are refused or read whole.

    One without a frame that makes sense is Pillow's to refuse.
    """
    frame = find_frame(data)
    if frame is not None and not frame.is_handled:
        raise UnreadableImage(
            "unsupported_mode",
            "The JPEG is of a kind that is not handled: hierarchical, or lossless with arithmetic "
            "coding. Save it as a usual JPEG or as a PNG.",
        )
    return frame is not None and frame.is_scalable


def _reduce(image: Image.Image) -> int:
    """Have it decoded at 1/2, 1/4 or 1/8 if enough is left: the number below the line."""
    width = image.size[0]
    reduced = image.draft(None, (_REDUCED_SIDE, _REDUCED_SIDE))
    return round(width / reduced[1][2]) if reduced else 1


def _channel(image: Image.Image, content: bytes) -> Channel:
    """One channel of an opened picture that is all there."""
    pixels = first_channel(content, image.mode, *image.size)
    if pixels is None:
        copy = sound_copy(content)
        pixels = first_channel(copy, image.mode, *image.size)
        if pixels is None:
            return _by_pillow(copy, image.size)
    return pixels, BYTE


def _by_pillow(copy: bytes, size: tuple[int, int]) -> Channel:
    with Image.open(io.BytesIO(copy), formats=(JPEG.name,)) as image:
        image.draft(None, size)
        image.decodermaxblock = len(copy)  # that of arithmetic coding cannot wait for more
        return read_channel(image)


def first_channel(data: bytes, mode: str, width: int, height: int) -> NDArray[np.uint8] | None:
    """Grey, or red of a colour picture, as Pillow would decode it, if libjpeg has no complaint.

    No decoder's word is taken for the size of what it writes: it writes a lossless picture whole,
    whatever is asked for.

    Args:
        data: a JPEG whose header Pillow could read.
        mode: what Pillow calls the kind of its pixels.
        width: in pixels, of the file or of what draft mode makes of it (1/2, 1/4 or 1/8).
        height: likewise.

    Returns:
        uint8 `[height, width]`; None when there is a complaint, the size is another, the coding
        does not report missing data, or the pixels are of another kind (such as CMYK).

    Raises:
        MemoryError: there is not enough of it.
    """
    colours, frame = _COLOURS.get(mode), find_scanned_frame(data)
    if colours is None or frame is None or frame.is_arithmetic:
        return None
    pixels = _strictly(data, frame, colours, width, height)
    if isinstance(pixels, str) or pixels.shape[:2] != (height, width):
        return None
    return pixels[:, :, 0]


def sound_copy(data: bytes) -> bytes:
    """A copy without what is harmless, of which all coded data is known to be there.

    Args:
        data: a JPEG that Pillow could open.

    Raises:
        UnreadableImage: data is missing, or may be.
        MemoryError: there is not enough of it to find out.
    """
    try:
        frame, segments = essential(data)
    except BrokenJpegError:
        raise _damaged() from None
    copy = rebuild(segments)
    if find_scanned_frame(copy) is None or (
        frame.is_progressive and not has_full_detail(frame, segments)
    ):
        raise _damaged()  # whole scans may be missing, but not where something else is odd too
    complaint = _complaint(copy, frame)
    if frame.is_arithmetic:
        _check_arithmetic(frame, segments, complaint)
    elif not _is_sound(frame, segments, complaint, len(copy)):
        raise _damaged()
    return copy


def _is_sound(frame: Frame, segments: Sequence[Segment], complaint: str | None, size: int) -> bool:
    if not frame.is_scalable:
        return complaint is None
    if complaint is None and size > _WALKED_ANYWAY:
        return True
    is_open = complaint is None or _UNDECIDED.search(complaint) is not None
    return is_open and jpeg_huffman.is_all_there(frame, segments)


def _check_arithmetic(frame: Frame, segments: Sequence[Segment], complaint: str | None) -> None:
    if complaint is not None and _UNNAMED not in complaint:
        raise _damaged()
    if not jpeg_arithmetic.is_used_up(frame, segments):
        raise UnreadableImage(
            "corrupt",
            "Parts of the JPEG are missing, or it cannot be known: it is coded arithmetically. "
            "Save it with Huffman coding, as is usual.",
        )


def _complaint(copy: bytes, frame: Frame) -> str | None:
    """What libjpeg says first of a JPEG, at the least work that it takes on to say it."""
    found = _strictly(copy, frame, _checked_colours(frame), 1, 1)
    return found if isinstance(found, str) else None


def _strictly(
    data: bytes, frame: Frame, colours: str, width: int, height: int
) -> NDArray[np.uint8] | str:
    """The pixels at the smallest scale that is no smaller than this, or libjpeg's complaint."""
    if not frame.is_scalable:
        width, height = frame.width, frame.height
    if frame.kind in _SEQUENTIAL and _most_blocks(frame) <= _BLOCKS_BEFORE_RESTART:
        data = SOI + _RESTART_FAR_AWAY + data[len(SOI) :]
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, colorspace=colours, min_width=width, min_height=height, strict=True
        )
    except ValueError as error:
        if _NO_MEMORY in str(error):
            raise MemoryError from error
        return str(error)
    return pixels


def _checked_colours(frame: Frame) -> str:
    """What to ask for when only the complaints count; lossless colours are not made grey."""
    if len(frame.components) == _FOUR_INKS:
        return "CMYK"
    return "GRAY" if frame.is_scalable or len(frame.components) == 1 else "RGB"


def _most_blocks(frame: Frame) -> int:
    return -(-frame.width // 8) * -(-frame.height // 8)


def _damaged() -> UnreadableImage:
    return UnreadableImage("corrupt", "The JPEG is damaged: parts of the picture are missing.")
