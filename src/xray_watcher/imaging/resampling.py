"""Centre crop and resize to 224 x 224 as TorchXRayVision does it: a weighted sum per axis.

`XRayResizer` calls `skimage.transform.resize` (order 1, mode "constant", anti-aliasing), which is
a Gaussian and then linear interpolation. Both are linear and work on each axis alone, so that
they are one matrix per axis; crop, reduction by the decoder and border are in it as well. On
8- and 16-bit pictures the result is the library's to within 0.002 of the range of 2048.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 224
"""Width and height of the picture that the network takes."""

_BLOCK = 8  # output rows made in one multiplication
_KEPT = 32  # axes; devices send few sizes of picture, and making the weights costs a millisecond


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """How the stored pixels of one axis add up to the 224 of the result.

    Attributes:
        used: from the first to the last stored pixel that counts.
        blocks: for each 8 pixels of the result in turn, which of the used pixels they need, and
            float32 `[8, those]`: how much each adds, in 0..1. All other weights are zero.
        sums: float32 `[224]`, of the weights of each pixel: one, but less at the border.
    """

    used: slice
    blocks: tuple[tuple[slice, NDArray[np.float32]], ...]
    sums: NDArray[np.float32]


@lru_cache(_KEPT)
def axis(length: int, side: int, scale: int, *, flipped: bool) -> Axis:
    """The weights of one axis.

    With a factor f = side / 224 that is a Gaussian of sigma (f - 1) / 2, cut at four sigma, then
    linear interpolation at (i + 1/2) f - 1/2; outside the crop there is nothing, so that weights
    at the border sum to less than one (`skimage.transform.resize`, order 1, mode "constant").

    Args:
        length: pixels of the axis in the file.
        side: pixels that the centre crop keeps.
        scale: how many pixels in the file the decoder made one of.
        flipped: the axis is displayed the other way round, so the crop is counted from its end.
    """
    weights = _weights(length, side, scale, flipped=flipped)
    used = _used(weights)
    weights = weights[:, used]
    blocks = []
    for top in range(0, SIDE, _BLOCK):
        span = _used(weights[top : top + _BLOCK])
        blocks.append((span, np.ascontiguousarray(weights[top : top + _BLOCK, span])))
    return Axis(used, tuple(blocks), weights.sum(axis=1))


@lru_cache(_KEPT // 4)
def sums_of_weights(down: Axis, across: Axis) -> NDArray[np.float32]:
    """Of each pixel of the result, the sum of all weights: float32 `[224, 224]`."""
    return np.outer(down.sums, across.sums)


def _weights(length: int, side: int, scale: int, *, flipped: bool) -> NDArray[np.float32]:
    """How much each stored pixel adds to each of the result: `[224, ceil(length / scale)]`."""
    factor = side / SIDE
    kernel = _gaussian(max(0.0, (factor - 1) / 2))
    radius = len(kernel) // 2
    centres = (np.arange(SIDE) + 0.5) * factor - 0.5
    firsts = np.floor(centres).astype(np.intp)
    part = (centres - firsts)[:, np.newaxis]
    taps = (1 - part) * np.append(kernel, 0.0) + part * np.insert(kernel, 0, 0.0)
    columns = firsts[:, np.newaxis] + np.arange(-radius, radius + 2)
    start = length // 2 - side // 2  # as XRayCenterCrop rounds it
    offset = length - side - start if flipped else start
    inside = (columns >= 0) & (columns < side)
    weights = np.zeros((SIDE, math.ceil(length / scale) * scale))
    weights[np.nonzero(inside)[0], columns[inside] + offset] = taps[inside]
    summed: NDArray[np.float32] = weights.reshape(SIDE, -1, scale).sum(axis=2, dtype=np.float32)
    return summed


def _gaussian(sigma: float) -> NDArray[np.float64]:
    """The kernel of `scipy.ndimage.gaussian_filter`: it sums to one and is [1] for sigma 0."""
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum())


def _used(weights: NDArray[np.float32]) -> slice:
    """From the first to the last stored pixel that any of these rows needs."""
    columns = np.flatnonzero(weights.any(axis=0))
    return slice(int(columns[0]), int(columns[-1]) + 1)


def weighted_sums(pixels: NDArray[Any], down: Axis, across: Axis) -> NDArray[np.float32]:
    """Apply the weights of both axes.

    Args:
        pixels: `[height, width]` of those that are used, any number type.
        down: of the height.
        across: of the width.

    Returns:
        float32 `[224, 224]`.
    """
    lower = _in_blocks(down, pixels)
    return np.ascontiguousarray(_in_blocks(across, lower.T).T)


def _in_blocks(weights: Axis, values: NDArray[Any]) -> NDArray[np.float32]:
    """The weights times the values, by blocks of rows: as floats, all would fill the cache."""
    product = np.empty((SIDE, values.shape[1]), np.float32)
    for top, (span, block) in zip(range(0, SIDE, _BLOCK), weights.blocks, strict=True):
        floats = values[span].astype(np.float32, copy=False)
        np.matmul(block, floats, out=product[top : top + _BLOCK])
    return product
