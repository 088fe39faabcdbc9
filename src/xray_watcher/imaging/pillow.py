"""Opens a picture with Pillow, whatever it raises, and takes one channel of it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, UnidentifiedImageError

from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging.formats import Format
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.orientation import EXIF_ORIENTATION, TURNS, UPRIGHT, Turn

Channel: TypeAlias = tuple[NDArray[Any], tuple[float, float]]
"""Pixels, and the values that black and white have in them."""
BYTE, DEEP = (0.0, 255.0), (0.0, 65535.0)

_DEEP_MODES = ("I;16", "I;16B", "I")
_ALPHA_MODES = ("LA", "RGBA")
_COLOUR_MODES = ("RGB", "P", "CMYK", "YCbCr")
_GREY_MODES = ("1", "L")


@contextmanager
def open_picture(content: bytes, kind: Format, limits: DecodeLimits) -> Iterator[Image.Image]:
    """Open a picture and check its size; whatever Pillow raises in here is put into our words.

    Args:
        content: of the file.
        kind: its format.
        limits: what is refused as too large or too small.

    Raises:
        UnreadableImage: the header or what is read of the picture is damaged or not handled.
    """
    with (
        _translate_errors(limits),
        Image.open(io.BytesIO(content), formats=(kind.name,)) as image,
    ):
        limits.check_size(*image.size, getattr(image, "n_frames", 1))
        yield image


@contextmanager
def _translate_errors(limits: DecodeLimits) -> Iterator[None]:
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


def read_channel(image: Image.Image) -> Channel:
    """Grey, or red of a colour picture, as Pillow decodes it.

    Raises:
        UnreadableImage: the picture is of another kind.
    """
    transparent = image.info.get("transparency")
    if image.mode in _DEEP_MODES:
        deep = np.asarray(image)
        return (deep if transparent is None else np.where(deep == transparent, 0, deep)), DEEP
    if image.mode not in _ALPHA_MODES + _COLOUR_MODES + _GREY_MODES:
        raise UnreadableImage("unsupported_mode", f"The colour mode {image.mode} is not handled.")
    if image.mode in _ALPHA_MODES or transparent is not None:
        return _on_black(image.convert("RGBA")), BYTE
    if image.mode in _GREY_MODES:
        return np.asarray(image if image.mode == "L" else image.convert("L")), BYTE
    return np.asarray(image.convert("RGB").getchannel(0)), BYTE


def _on_black(image: Image.Image) -> NDArray[np.uint8]:
    """Red on black; alpha that is 0 everywhere is none, but a byte that a writer left unset."""
    red, alpha = image.getchannel(0), image.getchannel(3)
    is_alpha = alpha.getextrema() != (0, 0)
    return np.asarray(ImageChops.multiply(red, alpha) if is_alpha else red)


def read_turn(image: Image.Image) -> Turn:
    """What the metadata of an opened picture asks for; damaged metadata asks for nothing."""
    try:
        # Of Pillow's base: what it has read by now. That of a PNG would decode the pixels for it.
        return TURNS.get(Image.Image.getexif(image).get(EXIF_ORIENTATION, 1), UPRIGHT)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - metadata of cameras is often damaged, the picture is not
        return UPRIGHT
