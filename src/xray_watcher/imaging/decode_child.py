"""The parent's side of one decoding child process; `decode_worker` has the form of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_watcher.imaging.child import Child
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.picture import HALF_RANGE, DecodedImage
from xray_watcher.imaging.resampling import SIDE

_PIXEL_BYTES = SIDE * SIDE * 4


class DecodeChild(Child[DecodedImage]):
    """A child that decodes pictures for the network.

    Args:
        command: the program and its arguments.
        limits: what a picture may be.
    """

    def __init__(self, command: Sequence[str], limits: DecodeLimits) -> None:
        super().__init__(command)
        self._limits = limits

    def _result(self, answer: dict[str, Any], deadline: float) -> DecodedImage:
        width, height = self._side(answer, "width"), self._side(answer, "height")
        pixels = np.frombuffer(self._frame(_PIXEL_BYTES, deadline), dtype="<f4")
        if pixels.size != SIDE * SIDE or not _are_in_range(pixels):
            raise ValueError("pixels")
        own = pixels.astype(np.float32, copy=False).reshape(1, SIDE, SIDE)
        return DecodedImage(own, width, height)

    def _side(self, answer: dict[str, Any], key: str) -> int:
        value = answer.get(key)
        if type(value) is not int or not self._limits.min_side <= value <= self._limits.max_side:
            raise ValueError(key)
        return value


def _are_in_range(pixels: NDArray[np.float32]) -> bool:
    """Whether all lie within -1024..1024; one that is no number does not."""
    return bool(pixels.min() >= -HALF_RANGE and pixels.max() <= HALF_RANGE)
