"""What every format's pictures are checked for, and what is said of those that do not pass."""

from __future__ import annotations

from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging.formats import Format, foreign_bytes
from xray_watcher.imaging.limits import DecodeLimits


def check_end(data: bytes, end: int | None, kind: Format) -> int:
    """Refuse a picture without an end, or a broken one.

    Args:
        data: the content of the file.
        end: the offset just past the picture; None when none was found.
        kind: its format, which has an end marker.

    Returns:
        The same offset.

    Raises:
        UnreadableImage: there is none.
    """
    if end is not None:
        return end
    if kind.ends(data) == "whole":
        raise UnreadableImage(
            "corrupt", f"The {kind.name} is damaged: its parts or checksums are wrong."
        )
    raise UnreadableImage(
        "incomplete", f"The end of the {kind.name} is missing; there are {len(data)} bytes of it."
    )


def check_size(width: int, height: int, frames: int, limits: DecodeLimits) -> None:
    """Refuse several pictures in a file, and what is too large or too small; sides in pixels."""
    if frames != 1:
        raise UnreadableImage("multiple_frames", f"The file holds {frames} pictures, not one.")
    size = f"The picture has {width} x {height} pixels"
    if max(width, height) > limits.max_side:
        raise UnreadableImage("too_large", f"{size}; the limit is {limits.max_side} a side.")
    if width * height > limits.max_megapixels * 1e6:
        raise UnreadableImage(
            "too_large", f"{size}; the limit is {limits.max_megapixels:g} million."
        )
    if min(width, height) < limits.min_side:
        raise UnreadableImage("too_small", f"{size}; at least {limits.min_side} a side are needed.")


def check_nothing_follows(data: bytes, end: int) -> None:
    """Refuse foreign bytes behind the picture's end; padding is what writers leave there."""
    foreign = foreign_bytes(data[end:])
    if foreign:
        there_are = "There is 1 byte" if foreign == 1 else f"There are {foreign} bytes"
        raise UnreadableImage(
            "trailing_data", f"{there_are} of foreign data after the picture's end."
        )
