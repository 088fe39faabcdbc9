"""From the bytes of a picture, which are hostile input, to the pixels that the network takes.

What is accepted is a whole picture of one of `formats.FORMATS`, which its decoder reads through.
What the pixels are worth is TorchXRayVision's own preprocessing (`utils.load_image`,
`XRayCenterCrop`, `XRayResizer(224)`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_watcher.core.values import REJECTIONS
from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging import formats
from xray_watcher.imaging.formats import HEAD_BYTES, Format
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.picture import HALF_RANGE, DecodedImage, GreyImage, Read
from xray_watcher.imaging.pillow import BYTE
from xray_watcher.imaging.resampling import axis, sums_of_weights, weighted_sums


def decode(data: bytes, limits: DecodeLimits) -> DecodedImage:
    """Decode a whole picture into the pixels that the network takes.

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
    with _out_of_memory_refused():
        return _prepare(_read(data, limits))


def decode_for_display(data: bytes, limits: DecodeLimits) -> Image.Image:
    """Decode a whole picture into the picture for people to see: upright, 8 bits of grey.

    The grey values are those that the network gets; a large JPEG is decoded at a reduced size.

    Args:
        data: the content of the file.
        limits: what is refused as too large or too small.

    Raises:
        UnreadableImage: as `decode`.
    """
    with _out_of_memory_refused():
        grey = _read(data, limits)
        pixels = grey.pixels
        if (grey.black, grey.white) != BYTE:
            pixels = (pixels - grey.black) * (BYTE[1] / (grey.white - grey.black))
        return Image.fromarray(grey.turn.apply(pixels.astype(np.uint8)))


@contextmanager
def _out_of_memory_refused() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise UnreadableImage(
            "decoder_limit", "Reading the picture needs more memory than the decoder may use."
        ) from None


def _read(data: bytes, limits: DecodeLimits) -> GreyImage:
    return load_reader(_check_format(data, limits))(data, limits)


def load_reader(kind: Format) -> Read:
    """What decodes a format; its module is imported for that."""
    return cast(Read, import_module(kind.module).read)


def _check_format(data: bytes, limits: DecodeLimits) -> Format:
    if not data:
        raise UnreadableImage("empty", "The file has no content (0 bytes).")
    if len(data) > limits.max_bytes:
        raise UnreadableImage(
            "too_large", f"The file is larger than the limit of {limits.max_bytes} bytes."
        )
    kind = formats.recognise(data[:HEAD_BYTES])
    if kind is not None:
        return kind
    if formats.may_become_picture(data[:HEAD_BYTES]):
        raise UnreadableImage(
            "incomplete", f"The file of {len(data)} bytes lacks the beginning of a picture."
        )
    for alike in filter(None, (each.lookalike for each in formats.FORMATS)):
        if alike.pattern.match(data):
            raise UnreadableImage(alike.code, alike.detail)
    raise UnreadableImage("wrong_format", REJECTIONS["wrong_format"])


def _prepare(grey: GreyImage) -> DecodedImage:
    """Crop at the centre, resize, scale and turn; all but the turn is one weighted sum per axis."""
    side = min(grey.width, grey.height)
    down = axis(grey.height, side, grey.scale, flipped=grey.turn.flips_y)
    across = axis(grey.width, side, grey.scale, flipped=grey.turn.flips_x)
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
    size = (grey.height, grey.width) if grey.turn.swaps else (grey.width, grey.height)
    return DecodedImage(grey.turn.apply(pixels)[np.newaxis], *size)


def _range(pixels: NDArray[Any]) -> tuple[int, int]:
    """The darkest and the lightest stored value of what is scored."""
    darkest, lightest = int(pixels.min()), int(pixels.max())
    if darkest == lightest:
        raise UnreadableImage("blank", REJECTIONS["blank"])
    return darkest, lightest
