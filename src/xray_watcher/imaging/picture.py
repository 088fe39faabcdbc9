"""A picture as its format's module decodes it, and as the network takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.orientation import UPRIGHT, Turn

HALF_RANGE = 1024.0
"""Pixels lie in -HALF_RANGE (black) to HALF_RANGE (white)."""
LOW_CONTRAST = 85.0
"""A standard deviation of the pixels below this is flagged.

506 real films have 198 or more, raw values of 12 bits in 16 bits 34 to 37: this is 2.3 times the
one, and the other 2.3 times this.
"""


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
class GreyImage:
    """A decoded picture before crop and resize, as it is stored.

    Attributes:
        pixels: `[height, width]`, both divided by `scale` and rounded up.
        black: the value that black has in them.
        white: the value that white has in them.
        width: of the picture in the file, in pixels.
        height: likewise.
        scale: by how much the decoder reduced it: 1, 2, 4 or 8.
        turn: how it becomes the displayed picture.
    """

    pixels: NDArray[Any]
    black: float
    white: float
    width: int
    height: int
    scale: int = 1
    turn: Turn = UPRIGHT


Read: TypeAlias = Callable[[bytes, DecodeLimits], GreyImage]
"""Decodes the content of a file with the signature of its format.

It raises `UnreadableImage` unless the picture is whole, within the limits, and all that there is.
"""
