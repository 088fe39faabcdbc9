"""A picture as it is stored, which the module of each format makes of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.orientation import Turn


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
        turn: how it becomes the displayed picture; None where it is that already.
    """

    pixels: NDArray[Any]
    black: float
    white: float
    width: int
    height: int
    scale: int = 1
    turn: Turn | None = None


Read: TypeAlias = Callable[[bytes, DecodeLimits], GreyImage]
"""Decodes the content of a file with the signature of its format.

It raises `UnreadableImage` unless the picture is whole, within the limits, and all that there is.
"""
