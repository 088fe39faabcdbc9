"""The parent's side of one decoding child process; `decode_worker` has the form of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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
        sides = self._limits.min_side, self._limits.max_side
        width, height = (self._checked_number(answer, key, *sides) for key in ("width", "height"))
        pixels = np.frombuffer(self._frame(_PIXEL_BYTES, deadline), dtype="<f4")
        if pixels.size != SIDE * SIDE:
            raise ValueError("pixels")
        if not (pixels.min() >= -HALF_RANGE and pixels.max() <= HALF_RANGE):  # NaN is neither
            raise ValueError("pixels")
        own = pixels.astype(np.float32, copy=False).reshape(1, SIDE, SIDE)
        return DecodedImage(own, width, height)
