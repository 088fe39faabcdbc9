"""From the bytes of a JPEG or PNG, which are hostile input, to the pixels that the network takes.

What is accepted is a whole picture: its end marker stands at the end of the file, the checksum of
every chunk of a PNG holds, and the decoder reads it through. What the pixels are worth is
TorchXRayVision's own preprocessing (`utils.load_image`, `XRayCenterCrop`, `XRayResizer(224)`).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, UnidentifiedImageError

from xray_watcher.errors import UnreadableImage
from xray_watcher.intake import jpegs, pngs
from xray_watcher.intake.containers import (
    Format,
    end_of,
    ends_whole,
    ends_with_pixels,
    format_of,
    has_all_rows,
    is_interlaced,
    may_become_picture,
)
from xray_watcher.intake.resampling import SIDE, axis, weighted_sums

HALF_RANGE = 1024.0
"""Pixels lie in -HALF_RANGE (black) to HALF_RANGE (white)."""
TAIL_BYTES = 65536
"""How much of the end of a file `completeness` needs to see past padding."""

_REDUCED_SIDE = 4 * SIDE  # a JPEG is decoded at 1/2, 1/4 or 1/8 as long as this much is left

_DEEP_MODES = ("I;16", "I;16B", "I")
_ALPHA_MODES = ("LA", "RGBA")
_COLOUR_MODES = ("RGB", "P", "CMYK", "YCbCr")
_GREY_MODES = ("1", "L")


class _Turn(NamedTuple):
    """How a stored picture becomes the displayed one; the flips are of the stored axes."""

    method: Image.Transpose
    flips_x: bool
    flips_y: bool
    swaps: bool


_TURNS = {  # by the value of EXIF's Orientation (CIPA DC-008, tag 0x0112)
    2: _Turn(Image.Transpose.FLIP_LEFT_RIGHT, flips_x=True, flips_y=False, swaps=False),
    3: _Turn(Image.Transpose.ROTATE_180, flips_x=True, flips_y=True, swaps=False),
    4: _Turn(Image.Transpose.FLIP_TOP_BOTTOM, flips_x=False, flips_y=True, swaps=False),
    5: _Turn(Image.Transpose.TRANSPOSE, flips_x=False, flips_y=False, swaps=True),
    6: _Turn(Image.Transpose.ROTATE_270, flips_x=False, flips_y=True, swaps=True),
    7: _Turn(Image.Transpose.TRANSVERSE, flips_x=True, flips_y=True, swaps=True),
    8: _Turn(Image.Transpose.ROTATE_90, flips_x=True, flips_y=False, swaps=True),
}
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may be at most and must be at least.

    Attributes:
        max_bytes: size of the file.
        max_megapixels: millions of pixels; Pillow itself refuses more than 89.
        min_side: shorter side in pixels.
        max_side: longer side in pixels.
    """

    max_bytes: int = 67_108_864
    max_megapixels: float = 50.0
    min_side: int = 64
    max_side: int = 12_000


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


@dataclass(frozen=True)
class _Grey:
    """A decoded picture before crop and resize, as it is stored.

    `scale` is by how much the decoder reduced it (1, 2, 4 or 8); `width` and `height` are
    those of the picture in the file, `pixels` has them divided by `scale` and rounded up.
    """

    pixels: NDArray[Any]
    maximum: float
    width: int
    height: int
    scale: int
    turn: _Turn | None


def completeness(head: bytes, tail: bytes) -> Literal["whole", "unfinished", "foreign"]:
    """Tell from both ends of a file whether it may be a finished picture; cheap, before decoding.

    Args:
        head: the first 16 bytes, or all if there are fewer.
        tail: the last bytes, up to `TAIL_BYTES`.

    Returns:
        "foreign" when the head is neither a JPEG's nor a PNG's; "unfinished" when the end
        marker does not stand at the end (only zero bytes may follow), or when the head is still
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

    Grey values are scaled by the maximum of their bit depth (8 bits by 255, 16 by 65535, never
    clipped) to -1024..1024, cropped at the centre to a square and resized to 224 with the weights
    of `skimage.transform.resize`, as `XRayResizer` does. EXIF orientation is applied; alpha is
    composed on black; palettes and CMYK become RGB first. Of a colour picture the first channel
    (red) counts, as in `torchxrayvision.utils.load_image`. Pillow keeps 8 of the 16 bits of RGB
    and alpha PNGs. Damaged metadata is no fault: the picture is then taken as it is stored.

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
        pixels = grey.pixels if grey.maximum == 255.0 else grey.pixels // 257
        image = Image.fromarray(pixels.astype(np.uint8))
    except MemoryError:
        raise UnreadableImage(
            "decoder_limit", "Reading the picture needs more memory than the decoder may use."
        ) from None
    return image if grey.turn is None else image.transpose(grey.turn.method)


def _read(data: bytes, limits: DecodeLimits) -> _Grey:
    kind = _checked_format(data, limits)
    end = _checked_end(data, kind)
    with _pillow(), Image.open(io.BytesIO(data), formats=(kind,)) as image:
        _check_header(image, limits)
        _check_nothing_follows(data, end)
        width, height = image.size
        reduced = image.draft(None, (_REDUCED_SIDE, _REDUCED_SIDE))
        scale = round(width / reduced[1][2]) if reduced else 1
        pixels, maximum = _first_channel(image, data, kind)
        return _Grey(pixels, maximum, width, height, scale, _turn(image))


def _first_channel(image: Image.Image, data: bytes, kind: Format) -> tuple[NDArray[Any], float]:
    """One channel of an opened picture that is all there, and the value that white has in it."""
    found = _quickly(image, data, kind)
    if found is not None:
        return found
    image.load()
    _check_rows(image, data, kind)
    return _grey(image)


def _quickly(image: Image.Image, data: bytes, kind: Format) -> tuple[NDArray[Any], float] | None:
    """The same without Pillow, of a plain picture that its decoder has no complaint about."""
    if kind == "PNG":
        is_plain = "transparency" not in image.info and ends_with_pixels(data)
        return pngs.first_channel(data, image.mode, *image.size) if is_plain else None
    pixels = jpegs.first_channel(data, image.mode, *image.size)
    return None if pixels is None else (pixels, 255.0)


@contextmanager
def _pillow() -> Iterator[None]:
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
        megapixels = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UnreadableImage(
            "too_large", f"The picture has more than {megapixels:.0f} megapixels."
        ) from None
    except UnidentifiedImageError:
        raise UnreadableImage(
            "corrupt",
            "The picture's header is damaged, or of a kind that is not handled "
            "(such as a JPEG with 12 bits per pixel).",
        ) from None
    except Exception as error:  # noqa: BLE001 - a made-up file can raise nearly anything in there
        raise UnreadableImage(
            "corrupt",
            f"The picture is damaged and cannot be read to its end ({type(error).__name__}).",
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
    raise UnreadableImage("wrong_format", "The content is neither a JPEG nor a PNG.")


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
    """Zero padding is what a preallocating writer leaves; anything else has no business there."""
    foreign = len(data[end:].rstrip(b"\x00"))
    if foreign:
        raise UnreadableImage(
            "trailing_data", f"There are {foreign} bytes of foreign data after the picture's end."
        )


def _check_rows(image: Image.Image, data: bytes, kind: Format) -> None:
    """Refuse a picture that is not all there: Pillow leaves what is missing at one value."""
    if kind == "JPEG":
        if not jpegs.is_complete(data):
            raise UnreadableImage(
                "corrupt", "The JPEG is damaged: parts of the picture are missing."
            )
        return
    width, height = image.size
    last_row = image.crop((0, height - 1, width, height))
    if np.asarray(last_row).any() and not is_interlaced(data):
        return
    if not has_all_rows(data):
        raise UnreadableImage("corrupt", "The PNG is damaged: rows of the picture are missing.")


def _grey(image: Image.Image) -> tuple[NDArray[Any], float]:
    """One channel of the loaded picture, and the value that white has in it."""
    transparent = image.info.get("transparency")
    if image.mode in _DEEP_MODES:
        deep = np.asarray(image)
        return (deep if transparent is None else np.where(deep == transparent, 0, deep)), 65535.0
    if image.mode not in _ALPHA_MODES + _COLOUR_MODES + _GREY_MODES:
        raise UnreadableImage("unsupported_mode", f"The colour mode {image.mode} is not handled.")
    if image.mode in _ALPHA_MODES or transparent is not None:
        rgba = image.convert("RGBA")
        return np.asarray(ImageChops.multiply(rgba.getchannel(0), rgba.getchannel(3))), 255.0
    if image.mode in _GREY_MODES:
        return np.asarray(image if image.mode == "L" else image.convert("L")), 255.0
    return np.asarray(image.convert("RGB").getchannel(0)), 255.0


def _turn(image: Image.Image) -> _Turn | None:
    try:
        # Of Pillow's base: what it has read by now. That of a PNG would decode the pixels for it.
        return _TURNS.get(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - metadata of cameras is often damaged, the picture is not
        return None


def _prepared(grey: _Grey) -> DecodedImage:
    """Crop at the centre, resize, scale and turn; all but the turn is one weighted sum per axis."""
    turn = grey.turn
    side = min(grey.width, grey.height)
    down = axis(grey.height, side, grey.scale, flipped=turn is not None and turn.flips_y)
    across = axis(grey.width, side, grey.scale, flipped=turn is not None and turn.flips_x)
    used = grey.pixels[down.used, across.used]
    darkest, lightest = _range(used, grey.maximum)
    values = weighted_sums(used, down, across) * np.float32(2 * HALF_RANGE / grey.maximum)
    # The library scales first and takes pixels beyond the border as 0, which is a middle grey.
    values -= np.float32(HALF_RANGE) * np.outer(down.sums, across.sums)
    pixels = np.clip(values, darkest, lightest)  # as skimage: no value that was not there
    if turn is None:
        return DecodedImage(pixels[np.newaxis], grey.width, grey.height)
    turned = np.array(Image.fromarray(pixels).transpose(turn.method))
    size = (grey.height, grey.width) if turn.swaps else (grey.width, grey.height)
    return DecodedImage(turned[np.newaxis], *size)


def _range(pixels: NDArray[Any], maximum: float) -> tuple[np.float32, np.float32]:
    """The darkest and the lightest value on the network's scale."""
    darkest, lightest = int(pixels.min()), int(pixels.max())
    if darkest == lightest:
        raise UnreadableImage("blank", "The picture has no content: every pixel is the same.")
    factor = 2 * HALF_RANGE / maximum
    return np.float32(darkest * factor - HALF_RANGE), np.float32(lightest * factor - HALF_RANGE)
