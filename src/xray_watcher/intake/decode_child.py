"""The parent's side of one decoding child process; `decode_worker` has the form of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xray_watcher.intake.child import Child
from xray_watcher.intake.images import HALF_RANGE, DecodedImage, DecodeLimits
from xray_watcher.intake.resampling import SIDE

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
        if pixels.size != SIDE * SIDE or not np.all(np.abs(pixels) <= HALF_RANGE):  # NaN fails too
            raise ValueError("pixels")
        return DecodedImage(pixels.astype(np.float32).reshape(1, SIDE, SIDE), width, height)

    def _side(self, answer: dict[str, Any], key: str) -> int:
        value = answer.get(key)
        if type(value) is not int or not self._limits.min_side <= value <= self._limits.max_side:
            raise ValueError(key)
        return value
