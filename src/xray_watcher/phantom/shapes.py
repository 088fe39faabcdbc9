"""Shapes to draw phantoms with: soft edges, ellipses, bones, clouds, on a plane of points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
"""An array `[n, n]` over the plane, or one row `[1, n]` or column `[n, 1]` of it."""

Window = tuple[slice, slice]
"""Rows and columns of a plane."""
EVERYWHERE: Window = (slice(None), slice(None))

SIDES = (-1, 1)
REACH = 1.15
"""The plane goes beyond the film, so that the film may turn and shift."""


class Grid:
    """The plane as `side` x `side` points: `x` is a row `[1, n]`, `y` a column `[n, 1]`."""

    def __init__(self, side: int) -> None:
        line: Plane = np.linspace(-REACH, REACH, side, dtype=np.float32)
        self.side = side
        self.x: Plane = line[np.newaxis, :]
        self.y: Plane = line[:, np.newaxis]

    def zeros(self) -> Plane:
        """An empty plane."""
        return np.zeros((self.side, self.side), np.float32)

    def window(self, left: float, right: float, top: float, bottom: float) -> Window:
        """Rows and columns that hold a rectangle; shapes are only computed where they are."""
        return self._between(top, bottom), self._between(left, right)

    def cell(self, x: Plane, y: Plane) -> NDArray[np.intp]:
        """The flat index of the point nearest to each place; places outside go to the rim."""
        scale = (self.side - 1) / (2 * REACH)
        column = np.clip(np.rint((x + REACH) * scale), 0, self.side - 1).astype(np.intp)
        row = np.clip(np.rint((y + REACH) * scale), 0, self.side - 1).astype(np.intp)
        flat: NDArray[np.intp] = row * self.side + column
        return flat

    def half(self, side: int, ends: tuple[float, float], top: float, bottom: float) -> Window:
        """As `window`, on one side of the midline and between two distances from it."""
        left, right = sorted((ends[0] * side, ends[1] * side))
        return self.window(left, right, top, bottom)

    def places(self, window: Window) -> tuple[Plane, Plane]:
        """The `u` (a row) and `y` (a column) of the points in a window of one half."""
        return np.abs(self.x[:, window[1]]), self.y[window[0]]

    def _between(self, low: float, high: float) -> slice:
        first, last = np.searchsorted(self.x[0], (low, high))
        return slice(int(first), int(last))


def step(distance: Plane, width: float) -> Plane:
    """A soft edge: 0 below -width, 1 above +width, smooth between."""
    t = np.clip(distance / (2 * width) + 0.5, 0, 1)
    soft: Plane = t * t * (3 - 2 * t)
    return soft


def round_profile(distance: Plane, radius: float) -> Plane:
    """Thickness of something with a round edge: 0 at its border, 1 from `radius` inwards."""
    t = np.clip(distance / radius, 0, 1)
    thickness: Plane = np.sqrt(t * (2 - t))
    return thickness


def ellipse(
    x: Plane, y: Plane, centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0
) -> Plane:
    """1 in the middle of an ellipse, 0 on its border, negative outside.

    Args:
        x: places, a row.
        y: places, a column.
        centre: of the ellipse, x and y.
        radii: along its own axes.
        tilt: radians by which its first axis points downwards on the right.
    """
    cos, sin = float(np.cos(tilt)), float(np.sin(tilt))
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    along = dx * (cos / radii[0]) + dy * (sin / radii[0])
    across = dy * (cos / radii[1]) - dx * (sin / radii[1])
    inside: Plane = 1 - along * along - across * across
    return inside


def bone(distance: Plane, half: float) -> Plane:
    """Across a bone: dense, with a brighter rim where the ray runs along its hard shell."""
    t = distance / np.float32(half)
    return step(1 - np.abs(t), 0.25) * (0.62 + 0.38 * np.minimum(t * t, 1))


def clouds(rng: np.random.Generator, grid: Grid, cells: int) -> Plane:
    """Smooth random texture `[n, n]` with about `cells` cells along each axis, spread about 1."""
    places = np.linspace(0, cells - 1, grid.side, dtype=np.float32)[:, np.newaxis]
    nearness = np.exp(-1.5 * (places - np.arange(cells, dtype=np.float32)) ** 2)
    weights = nearness / np.sqrt((nearness**2).sum(axis=1, keepdims=True))
    values = rng.standard_normal((cells, cells), np.float32)
    cloud: Plane = weights @ values @ weights.T
    return cloud


def blur(plane: Plane, sigma: float) -> Plane:
    """Gaussian blur; sigma in points of the plane."""
    reach = max(1, int(np.ceil(2.5 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        spread = np.zeros_like(plane)
        for shift, tap in zip(range(-reach, reach + 1), taps, strict=True):
            _add_shifted(spread, plane, shift, np.float32(tap), axis)
        plane = spread
    return plane


def _add_shifted(to: Plane, plane: Plane, shift: int, factor: np.float32, axis: int) -> None:
    size = plane.shape[axis]
    target = slice(max(0, shift), size + min(0, shift))
    origin = slice(max(0, -shift), size + min(0, -shift))
    if axis == 0:
        to[target] += plane[origin] * factor
    else:
        to[:, target] += plane[:, origin] * factor
