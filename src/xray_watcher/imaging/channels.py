"""One channel of a picture that Pillow has opened."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from xray_watcher.errors import UnreadableImage

Channel: TypeAlias = tuple[NDArray[Any], tuple[float, float]]
"""Pixels, and the values that black and white have in them."""
BYTE, DEEP = (0.0, 255.0), (0.0, 65535.0)

_DEEP_MODES = ("I;16", "I;16B", "I")
_ALPHA_MODES = ("LA", "RGBA")
_COLOUR_MODES = ("RGB", "P", "CMYK", "YCbCr")
_GREY_MODES = ("1", "L")


def channel_of(image: Image.Image) -> Channel:
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
