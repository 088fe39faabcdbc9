"""The formats of pictures: one `Format` each, in one table.

A new format is a module with a function `read` (see `picture.Read`) and one entry of `FORMATS`.
The suffixes that are taken by default, what the inbox waits for and what the decoders load follow
from the table. No decoder is imported here, for the service itself recognises formats, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from xray_watcher.errors import UnreadableImage

Completeness = Literal["whole", "unfinished", "unknown", "foreign"]
"""Whether both ends of a file are those of a finished picture; see `completeness`."""

_MOST_PADDING = 16  # bytes, beside any number of zeros at the very end
_PADDING = b"\x00\xff\n\r"


@dataclass(frozen=True, slots=True)
class Lookalike:
    """Content that resembles a format and cannot be read.

    Attributes:
        pattern: matches its beginning.
        code: of `REJECTIONS`.
        detail: what is said of it; a sentence.
    """

    pattern: re.Pattern[bytes]
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Format:
    """A format of pictures.

    Attributes:
        name: as people and Pillow call it.
        suffixes: endings of its files' names, in lower case, with the dot.
        signature: the bytes by which it is recognised.
        end_marker: the last bytes of every whole file, ahead of padding; None where the format has
            none: then the ends of a file do not show whether it is whole.
        module: its function `read` decodes; it is imported in the children alone.
        signature_at: where the signature stands, in bytes from the beginning.
        lookalike: what is refused with a sentence of its own.
    """

    name: str
    suffixes: tuple[str, ...]
    signature: bytes
    end_marker: bytes | None
    module: str
    signature_at: int = 0
    lookalike: Lookalike | None = None

    def begins(self, head: bytes) -> bool:
        """Whether the signature stands in its place."""
        return head.startswith(self.signature, self.signature_at)

    def may_begin(self, head: bytes) -> bool:
        """Whether a part of the signature stands in its place, and the head ends there."""
        begun = head[self.signature_at :]
        return bool(begun) and self.signature.startswith(begun)

    def ends(self, tail: bytes) -> Literal["whole", "unfinished", "unknown"]:
        """Whether a file with this end is whole: only padding may follow the end marker."""
        if self.end_marker is None:
            return "unknown"
        trimmed = tail.rstrip(_PADDING)
        is_whole = trimmed.endswith(self.end_marker) and not foreign_bytes(tail[len(trimmed) :])
        return "whole" if is_whole else "unfinished"

    def check_end(self, data: bytes, end: int | None) -> int:
        """Return the offset just past the picture.

        Raises:
            UnreadableImage: it is None, for the end is missing or a part is broken.
        """
        if end is not None:
            return end
        if self.ends(data) == "whole":
            raise UnreadableImage(
                "corrupt", f"The {self.name} is damaged: its parts or checksums are wrong."
            )
        raise UnreadableImage(
            "incomplete",
            f"The end of the {self.name} is missing; there are {len(data)} bytes of it.",
        )


JPEG = Format(
    name="JPEG",
    suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
    signature=b"\xff\xd8\xff",
    end_marker=b"\xff\xd9",
    module="xray_watcher.imaging.jpeg",
)
PNG = Format(
    name="PNG",
    suffixes=(".png",),
    signature=b"\x89PNG\r\n\x1a\n",
    end_marker=b"\x00\x00\x00\x00IEND\xaeB`\x82",
    module="xray_watcher.imaging.png",
    lookalike=Lookalike(
        re.compile(rb".PNG", re.DOTALL),
        "wrong_format",
        "The content is a PNG that was damaged on its way as text. Transfer it as binary data.",
    ),
)
FORMATS = (JPEG, PNG)
"""All formats that are read."""

SUFFIXES = tuple(suffix for each in FORMATS for suffix in each.suffixes)
"""The endings of names that are taken by default."""

HEAD_BYTES = max(16, *(each.signature_at + len(each.signature) for each in FORMATS))
"""How much of the beginning `completeness` and `recognise` need; all of it zero is no beginning."""

TAIL_BYTES = 65536
"""How much of the end `completeness` needs, to see past padding."""


def recognise(head: bytes) -> Format | None:
    """Find the format by the first `HEAD_BYTES`; None for another one, or for too few bytes."""
    return next((each for each in FORMATS if each.begins(head)), None)


def may_become_picture(head: bytes) -> bool:
    """Whether a head without a format may get one yet: a part of one, or all zero bytes."""
    return not head.strip(b"\x00") or any(each.may_begin(head) for each in FORMATS)


def completeness(head: bytes, tail: bytes) -> Completeness:
    """Judge by both ends of a file whether it may be a finished picture; cheap, before decoding.

    Args:
        head: the first `HEAD_BYTES`, or all if there are fewer.
        tail: the last bytes, up to `TAIL_BYTES`.

    Returns:
        "foreign" when the head is of no format that is read. "unfinished" when the end marker does
        not stand at the end (only padding may follow), or when the head is still to come: too
        short, or all zero as after preallocation. "unknown" when the format has no end marker.
        Else "whole". A finished picture with foreign bytes after it is "unfinished" here, since a
        JPEG's marker may also stand in a thumbnail; `pixels.decode` distinguishes the two.
    """
    found = recognise(head)
    if found is not None:
        return found.ends(tail)
    return "unfinished" if may_become_picture(head) else "foreign"


def foreign_bytes(rest: bytes) -> int:
    """How many bytes behind a picture's end are no padding.

    Zeros are what a preallocating writer leaves. A few line ends or ones come from devices and from
    transfers as text; they hold nothing.
    """
    rest = rest.rstrip(b"\x00")
    is_padding = len(rest) <= _MOST_PADDING and not rest.strip(_PADDING)
    return 0 if is_padding else len(rest)


def check_nothing_follows(data: bytes, end: int) -> None:
    """Refuse foreign bytes behind the picture's end; padding is what writers leave there."""
    foreign = foreign_bytes(data[end:])
    if foreign:
        there_are = "There is 1 byte" if foreign == 1 else f"There are {foreign} bytes"
        raise UnreadableImage(
            "trailing_data", f"{there_are} of foreign data after the picture's end."
        )
