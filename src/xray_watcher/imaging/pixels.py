"""From the bytes of a JPEG or PNG, which are hostile input, to the pixels that the network takes.

What is accepted is a whole picture: its end marker stands at the end of the file, the checksum of
every chunk of a PNG holds, and the decoder reads it through. What the pixels are worth is
TorchXRayVision's own preprocessing (`utils.load_image`, `XRayCenterCrop`, `XRayResizer(224)`).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from xray_watcher.core.values import REJECTIONS
from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging import jpeg, jpeg_parts, png
from xray_watcher.imaging.channels import BYTE, Channel, channel_of
from xray_watcher.imaging.containers import (
    Format,
    end_of,
    ends_whole,
    ends_with_pixels,
    foreign_bytes,
    format_of,
    has_all_rows,
    is_interlaced,
    may_become_picture,
)
from xray_watcher.imaging.orientation import Turn, turn_of
from xray_watcher.imaging.resampling import SIDE, axis, sums_of_weights, weighted_sums

HALF_RANGE = 1024.0
"""Pixels lie in -HALF_RANGE (black) to HALF_RANGE (white)."""
DeepRange = Literal["full", "observed"]
LOW_CONTRAST = 85.0
"""A standard deviation of the pixels below this is flagged.

506 real films have 198 or more, raw values of 12 bits in 16 bits 34 to 37: this is 2.3 times the
one, and the other 2.3 times this.
"""
TAIL_BYTES = 65536
"""How much of the end of a file `completeness` needs to see past padding."""

_REDUCED_SIDE = 4 * SIDE  # a JPEG is decoded at 1/2, 1/4 or 1/8 as long as this much is left


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may be at most and must be at least, and how its values are read.

    Attributes:
        max_bytes: size of the file.
        max_megapixels: millions of pixels; Pillow itself refuses more than 89.
        min_side: shorter side in pixels.
        max_side: longer side in pixels.
        deep_range: what is white in a grey picture of 16 bits: "full" is 65535, "observed" the
            lightest value that is there, and black the darkest.
    """

    max_bytes: int = 67_108_864
    max_megapixels: float = 50.0
    min_side: int = 64
    max_side: int = 12_000
    deep_range: DeepRange = "full"

    def arguments(self) -> tuple[str, ...]:
        """As the arguments of a child process, which `from_arguments` reads."""
        return tuple(str(getattr(self, name)) for name in self.__slots__)

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Self:
        """What `arguments` wrote.

        Raises:
            ValueError: they are others.
        """
        max_bytes, max_megapixels, min_side, max_side, deep_range = arguments
        if deep_range not in get_args(DeepRange):
            raise ValueError(deep_range)
        return cls(
            int(max_bytes),
            float(max_megapixels),
            int(min_side),
            int(max_side),
            cast(DeepRange, deep_range),
        )


@dataclass(frozen=True)
class DecodedImage:
    """A picture as the network takes it.

    Attributes:
        pixels: float32 `[1, 224, 224]`, from -1024 (black) to 1024 (white).
        width: of the whole picture as it is displayed, in pixels, before crop and resize.
        height: likewise.
    """

    pixels: NDArray[np.float32]
    width: int
    height: int

    @property
    def has_low_contrast(self) -> bool:
        """Whether the network sees next to nothing, as of 12-bit values written into 16 bits."""
        return float(self.pixels.std()) < LOW_CONTRAST


@dataclass(frozen=True)
class _Grey:
    """A decoded picture before crop and resize, as it is stored.

    Black is the value `black`, white the value `white`. `scale` is by how much the decoder reduced
    it (1, 2, 4 or 8); `width` and `height` are those of the picture in the file, `pixels` has them
    divided by `scale` and rounded up.
    """

    pixels: NDArray[Any]
    black: float
    white: float
    width: int
    height: int
    scale: int
    turn: Turn | None


def completeness(head: bytes, tail: bytes) -> Literal["whole", "unfinished", "foreign"]:
    """Tell from both ends of a file whether it may be a finished picture; cheap, before decoding.

    Args:
        head: the first 16 bytes, or all if there are fewer.
        tail: the last bytes, up to `TAIL_BYTES`.

    Returns:
        "foreign" when the head is neither a JPEG's nor a PNG's; "unfinished" when the end
        marker does not stand at the end (only padding may follow), or when the head is still
        to come: too short, or all zero as after preallocation; else "whole". A finished picture
        with foreign bytes after it is "unfinished" here, since a JPEG's marker may also stand in
        a thumbnail; `decode` tells the two apart.
    """
    kind = format_of(head)
    if kind is not None:
        return "whole" if ends_whole(tail, kind) else "unfinished"
    return "unfinished" if may_become_picture(head) else "foreign"


def decode(data: bytes, limits: DecodeLimits) -> DecodedImage:
    """Decode a whole JPEG or PNG into the pixels that the network takes.

    Grey values are scaled by the maximum of their bit depth (8 bits by 255, 16 by 65535 or, if so
    asked, by the range that is there; never clipped) to -1024..1024, cropped at the centre to a
    square and resized to 224 with the weights of `skimage.transform.resize`, as `XRayResizer` does.
    EXIF orientation is applied; alpha is composed on black, unless it is 0 everywhere; palettes and
    CMYK become RGB first. Of a colour picture the first channel (red) counts, as in
    `torchxrayvision.utils.load_image`. Pillow keeps 8 of the 16 bits of RGB and alpha PNGs. Damaged
    metadata is no fault: the picture is then taken as it is stored.

    Args:
        data: the content of the file.
        limits: what is refused as too large or too small.

    Returns:
        The pixels and the size of the picture as it is displayed.

    Raises:
        UnreadableImage: with a code of `REJECTIONS` and a sentence that quotes nothing of the file.
    """
    try:
        return _prepared(_read(data, limits))
    except MemoryError:
        raise UnreadableImage(
            "decoder_limit", "Reading the picture needs more memory than the decoder may use."
        ) from None


def displayed(data: bytes, limits: DecodeLimits) -> Image.Image:
    """Decode a whole JPEG or PNG into the picture for people to see: upright, 8 bits of grey.

    The grey values are those that the network gets; a large JPEG is decoded at a reduced size.

    Args:
        data: the content of the file.
        limits: what is refused as too large or too small.

    Raises:
        UnreadableImage: as `decode`.
    """
    try:
        grey = _read(data, limits)
        pixels = grey.pixels
        if (grey.black, grey.white) != BYTE:
            pixels = (pixels - grey.black) * (BYTE[1] / (grey.white - grey.black))
        image = Image.fromarray(pixels.astype(np.uint8))
    except MemoryError:
        raise UnreadableImage(
            "decoder_limit", "Reading the picture needs more memory than the decoder may use."
        ) from None
    return image if grey.turn is None else image.transpose(grey.turn.method)


def _read(data: bytes, limits: DecodeLimits) -> _Grey:
    kind = _checked_format(data, limits)
    end = _checked_end(data, kind)
    is_scalable = kind == "JPEG" and _checked_frame(data)
    content = data if kind == "JPEG" else png.plain_copy(data)
    with _pillow(limits), Image.open(io.BytesIO(content), formats=(kind,)) as image:
        _check_header(image, limits)
        _check_nothing_follows(data, end)
        width, height = image.size
        scale = _reduce(image) if is_scalable else 1
        pixels, (black, white) = _first_channel(image, content, kind)
        if white != BYTE[1] and limits.deep_range == "observed":
            black = float(pixels.min())
            white = max(float(pixels.max()), black + 1)
        return _Grey(pixels, black, white, width, height, scale, turn_of(image))


def _reduce(image: Image.Image) -> int:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 if enough is left: the number below the line."""
    width = image.size[0]
    reduced = image.draft(None, (_REDUCED_SIDE, _REDUCED_SIDE))
    return round(width / reduced[1][2]) if reduced else 1


def _first_channel(image: Image.Image, content: bytes, kind: Format) -> Channel:
    """One channel of an opened picture that is all there."""
    return _of_png(image, content) if kind == "PNG" else _of_jpeg(image, content)


def _of_png(image: Image.Image, content: bytes) -> Channel:
    if "transparency" not in image.info and ends_with_pixels(content):
        found = png.first_channel(content, image.mode, *image.size)
        if found is not None:
            return found[0], (0.0, found[1])
    image.load()
    _check_rows(image, content)
    return channel_of(image)


def _of_jpeg(image: Image.Image, content: bytes) -> Channel:
    pixels = jpeg.first_channel(content, image.mode, *image.size)
    if pixels is None:
        copy = jpeg.sound_copy(content)
        pixels = jpeg.first_channel(copy, image.mode, *image.size)
        if pixels is None:
            return _by_pillow(copy, image.size)
    return pixels, BYTE


def _by_pillow(copy: bytes, size: tuple[int, int]) -> Channel:
    with Image.open(io.BytesIO(copy), formats=("JPEG",)) as image:
        image.draft(None, size)
        image.decodermaxblock = len(copy)  # that of arithmetic coding cannot wait for more
        return channel_of(image)


@contextmanager
def _pillow(limits: DecodeLimits) -> Iterator[None]:
    """Turn whatever Pillow raises on a hostile picture into `UnreadableImage`.

    Its own messages are never passed on, for they may quote the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (UnreadableImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = min(limits.max_megapixels, (Image.MAX_IMAGE_PIXELS or 0) / 1e6)
        raise UnreadableImage(
            "too_large", f"The picture has more pixels than the limit of {most:.3g} million."
        ) from None
    except UnidentifiedImageError:
        raise UnreadableImage(
            "corrupt",
            "The picture's header is damaged, or of a kind that is not handled "
            "(such as a JPEG with 12 bits per pixel).",
        ) from None
    except Exception:  # noqa: BLE001 - a made-up file can raise nearly anything in there
        raise UnreadableImage(
            "corrupt", "The picture is damaged and cannot be read to its end."
        ) from None


def _checked_format(data: bytes, limits: DecodeLimits) -> Format:
    if not data:
        raise UnreadableImage("empty", "The file has no content (0 bytes).")
    if len(data) > limits.max_bytes:
        raise UnreadableImage(
            "too_large", f"The file is larger than the limit of {limits.max_bytes} bytes."
        )
    kind = format_of(data[:16])
    if kind is not None:
        return kind
    if may_become_picture(data[:16]):
        raise UnreadableImage(
            "incomplete", f"The file of {len(data)} bytes lacks the beginning of a picture."
        )
    if data[1:4] == b"PNG":
        raise UnreadableImage(
            "wrong_format",
            "The content is a PNG that was damaged on its way as text. Transfer it as binary data.",
        )
    raise UnreadableImage("wrong_format", "The content is neither a JPEG nor a PNG.")


def _checked_frame(data: bytes) -> bool:
    """Whether a JPEG is of a kind that decoders can make smaller; others are refused or read whole.

    One without a frame that makes sense is Pillow's to refuse.
    """
    frame = jpeg_parts.frame_of(data)
    if frame is not None and not frame.is_handled:
        raise UnreadableImage(
            "unsupported_mode",
            "The JPEG is of a kind that is not handled: hierarchical, or lossless with arithmetic "
            "coding. Save it as a usual JPEG or as a PNG.",
        )
    return frame is not None and frame.is_scalable


def _checked_end(data: bytes, kind: Format) -> int:
    """The offset just past the picture; a picture without an end, or a broken one, is refused."""
    end = end_of(data, kind)
    if end is not None:
        return end
    if ends_whole(data, kind):
        raise UnreadableImage(
            "corrupt", f"The {kind} is damaged: its parts or checksums are wrong."
        )
    raise UnreadableImage(
        "incomplete", f"The end of the {kind} is missing; there are {len(data)} bytes of it."
    )


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise UnreadableImage("multiple_frames", f"The file holds {frames} pictures, not one.")
    width, height = image.size
    size = f"The picture has {width} x {height} pixels"
    if max(width, height) > limits.max_side:
        raise UnreadableImage("too_large", f"{size}; the limit is {limits.max_side} a side.")
    if width * height > limits.max_megapixels * 1e6:
        raise UnreadableImage(
            "too_large", f"{size}; the limit is {limits.max_megapixels:g} million."
        )
    if min(width, height) < limits.min_side:
        raise UnreadableImage("too_small", f"{size}; at least {limits.min_side} a side are needed.")


def _check_nothing_follows(data: bytes, end: int) -> None:
    """Padding is what writers leave there; anything else has no business there."""
    foreign = foreign_bytes(data[end:])
    if foreign:
        there_are = "There is 1 byte" if foreign == 1 else f"There are {foreign} bytes"
        raise UnreadableImage(
            "trailing_data", f"{there_are} of foreign data after the picture's end."
        )


def _check_rows(image: Image.Image, content: bytes) -> None:
    """Refuse a PNG that is not all there: Pillow leaves what is missing at one value."""
    width, height = image.size
    last_row = image.crop((0, height - 1, width, height))
    if np.asarray(last_row).any() and not is_interlaced(content):
        return
    if not has_all_rows(content):
        raise UnreadableImage("corrupt", "The PNG is damaged: rows of the picture are missing.")


def _prepared(grey: _Grey) -> DecodedImage:
    """Crop at the centre, resize, scale and turn; all but the turn is one weighted sum per axis."""
    turn = grey.turn
    side = min(grey.width, grey.height)
    down = axis(grey.height, side, grey.scale, flipped=turn is not None and turn.flips_y)
    across = axis(grey.width, side, grey.scale, flipped=turn is not None and turn.flips_x)
    used = grey.pixels[down.used, across.used]
    factor = 2 * HALF_RANGE / (grey.white - grey.black)
    shift = grey.black * factor + HALF_RANGE
    darkest, lightest = _range(used)
    values = weighted_sums(used, down, across) * np.float32(factor)
    # The library scales first and takes pixels beyond the border as 0, which is a middle grey.
    values -= np.float32(shift) * sums_of_weights(down, across)
    # As skimage does: no value that was not there.
    pixels = np.clip(
        values, np.float32(darkest * factor - shift), np.float32(lightest * factor - shift)
    )
    if turn is None:
        return DecodedImage(pixels[np.newaxis], grey.width, grey.height)
    turned = np.array(Image.fromarray(pixels).transpose(turn.method))
    size = (grey.height, grey.width) if turn.swaps else (grey.width, grey.height)
    return DecodedImage(turned[np.newaxis], *size)


def _range(pixels: NDArray[Any]) -> tuple[int, int]:
    """The darkest and the lightest stored value of what is scored."""
    darkest, lightest = int(pixels.min()), int(pixels.max())
    if darkest == lightest:
        raise UnreadableImage("blank", REJECTIONS["blank"])
    return darkest, lightest
