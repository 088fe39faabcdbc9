"""Phantoms: drawn chest radiographs, normal or with the sign of one condition.

They let a machine without the real weights show its work with results that can be checked: what
was drawn is known. They are no radiographs, and nothing learnt from them holds for patients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_watcher.phantom.anatomy import healthy
from xray_watcher.phantom.chest import chest
from xray_watcher.phantom.shapes import REACH, Plane, step
from xray_watcher.phantom.signs import SIGNS

CONDITIONS: tuple[str, ...] = tuple(SIGNS)
"""The conditions that can be drawn: the labels of `densenet121-res224-chex`, in its order."""

_BORDER = 0.015
"""Brightness where the collimator kept the rays away."""

_STROKES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "L": ((0.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.55, 1.0)),
    "R": (
        (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.4, 0.0), (0.4, 0.0, 0.55, 0.15),
        (0.55, 0.15, 0.55, 0.35), (0.55, 0.35, 0.4, 0.5), (0.4, 0.5, 0.0, 0.5),
        (0.25, 0.5, 0.55, 1.0),
    ),
}  # fmt: skip
"""The strokes of each letter, as lines x, y to x, y in a box 1 high."""


def draw(
    rng: np.random.Generator, condition: str | None, *, side: int = 512
) -> NDArray[np.float32]:
    """Draw a radiograph of a chest.

    The chest, the sign and the film are drawn from three streams of their own, so the same state
    of `rng` gives the same chest on the same film whatever the condition.

    Args:
        rng: where everything that varies comes from; three numbers are taken from it.
        condition: one of `CONDITIONS`, or None for a normal chest.
        side: width and height in pixels, at least 64.

    Returns:
        float32 `[side, side]` in 0..1; dense tissue is bright, air dark.

    Raises:
        KeyError: there is no such condition.
    """
    of_chest, of_sign, of_film = (
        np.random.default_rng(seed) for seed in rng.integers(2**63, size=3)
    )
    anatomy = healthy(of_chest)
    if condition is None:
        drawn = chest(of_chest, anatomy, side)
    else:
        alter, overlay = SIGNS[condition]
        drawn = chest(of_chest, alter(of_sign, anatomy), side)
        overlay(of_sign, drawn)
    return _film(of_film, drawn.total())


def frame(picture: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Scale a picture to the shorter side and fill the rest with the collimator's border.

    A crop to the centred square gives the picture back.

    Args:
        picture: float32 `[side, side]` in 0..1.
        width: of the result in pixels.
        height: of the result in pixels.

    Returns:
        float32 `[height, width]` in 0..1.
    """
    side = min(width, height)
    if side != picture.shape[0]:
        places = (np.arange(side, dtype=np.float32) + 0.5) * (picture.shape[0] / side) - 0.5
        picture = _sampled(picture, places[:, np.newaxis], places[np.newaxis, :])
    framed = np.full((height, width), _BORDER, np.float32)
    top, left = (height - side) // 2, (width - side) // 2
    framed[top : top + side, left : left + side] = picture
    return framed


def to_uint8(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture with 8 bits a pixel: 0..1 becomes 0..255, rounded."""
    levels: NDArray[np.uint8] = np.rint(np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)
    return levels


def to_uint16(picture: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The picture with 16 bits a pixel: 0..1 becomes 0..65535, rounded."""
    scaled = np.rint(np.clip(picture, 0, 1) * np.float32(65535))
    levels: NDArray[np.uint16] = scaled.astype(np.uint16)
    return levels


# -- from density to film -------------------------------------------------------------------


class _Setting(NamedTuple):
    """Where the patient stands: turn in radians, scale, and shift in half films."""

    turn: float
    scale: float
    right: float
    down: float


def _film(rng: np.random.Generator, density: Plane) -> NDArray[np.float32]:
    """Put the plane on the film: position, exposure, noise, collimator and marker."""
    setting = _Setting(
        turn=rng.normal(0, 0.022),
        scale=rng.uniform(0.94, 1.05),
        right=rng.uniform(-0.04, 0.04),
        down=rng.uniform(-0.04, 0.03),
    )
    picture = _exposed(rng, _placed(density, setting))
    _collimate(rng, picture)
    _mark(rng, picture)
    return np.clip(picture, 0, 1).astype(np.float32, copy=False)


def _placed(density: Plane, setting: _Setting) -> Plane:
    """Turn, scale and shift the plane; cut to the film."""
    side = density.shape[0]
    line = np.linspace(-1, 1, side, dtype=np.float32) / np.float32(setting.scale)
    x, y = line[np.newaxis, :] - setting.right, line[:, np.newaxis] - setting.down
    cos, sin = np.float32(np.cos(setting.turn)), np.float32(np.sin(setting.turn))
    to_cells = np.float32((side - 1) / (2 * REACH))
    rows = (y * cos + x * sin + REACH) * to_cells
    columns = (x * cos - y * sin + REACH) * to_cells
    return _sampled(density, rows.astype(np.float32), columns.astype(np.float32))


def _sampled(plane: Plane, rows: Plane, columns: Plane) -> Plane:
    """Values between the points, weighted by nearness (bilinear); the rim goes on outside."""
    last = plane.shape[0] - 1
    rows, columns = np.clip(rows, 0, last - 1e-3), np.clip(columns, 0, last - 1e-3)
    row, column = rows.astype(np.int32), columns.astype(np.int32)
    down, right = (rows - row).astype(np.float32), (columns - column).astype(np.float32)
    flat, corner = plane.ravel(), row * plane.shape[1] + column
    above = flat[corner] * (1 - right) + flat[corner + 1] * right
    corner += plane.shape[1]
    below = flat[corner] * (1 - right) + flat[corner + 1] * right
    sampled: Plane = above * (1 - down) + below * down
    return sampled


def _exposed(rng: np.random.Generator, density: Plane) -> Plane:
    """Brightness of a density: the film's S-shaped curve, then the grain of few rays."""
    middle, width = rng.uniform(0.66, 0.78), rng.uniform(0.21, 0.26)
    picture = 1 / (1 + np.exp((middle - density) / np.float32(width)))
    # The curve alone leaves air grey and bone short of white.
    picture = (picture - 0.05) * np.float32(rng.uniform(0.98, 1.06))
    grain = rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0.006, 0.018))
    exposed: Plane = np.maximum(picture + grain * (0.5 + picture), 0)
    return exposed


def _collimate(rng: np.random.Generator, picture: Plane) -> None:
    """Darken the margins that the collimator covers; some films have none."""
    if rng.random() < 0.4:
        return
    side = picture.shape[0]
    left, right, top, bottom = rng.uniform(-0.01, 0.045, 4)
    line = np.linspace(0, 1, side, dtype=np.float32)
    across = step(line - left, 0.002) * step(1 - right - line, 0.002)
    down = step(line - top, 0.002) * step(1 - bottom - line, 0.002)
    open_ = down[:, np.newaxis] * across[np.newaxis, :]
    picture *= open_
    picture += _BORDER * (1 - open_)


def _mark(rng: np.random.Generator, picture: Plane) -> None:
    """Lay a lead letter on the film: L on the patient's left, which is the picture's right."""
    letter = str(rng.choice(("L", "R")))
    height = rng.uniform(0.045, 0.065)
    x = rng.uniform(0.86, 0.90) if letter == "L" else rng.uniform(0.07, 0.11)
    y = rng.uniform(0.06, 0.14)
    side = picture.shape[0]
    rows, columns = _box(y, height, side), _box(x, height, side)
    across = ((np.arange(side, dtype=np.float32)[columns] + 0.5) / side - x)[np.newaxis, :] / height
    down = ((np.arange(side, dtype=np.float32)[rows] + 0.5) / side - y)[:, np.newaxis] / height
    distance = np.min([_to_line(across, down, line) for line in _STROKES[letter]], axis=0)
    lead = step(np.float32(0.085) - distance, 0.04)
    window = picture[rows, columns]
    np.maximum(window, lead * np.float32(rng.uniform(0.88, 1.0)), out=window)


def _box(start: float, height: float, side: int) -> slice:
    """The pixels around a letter, with room for its strokes' width."""
    return slice(int((start - 0.3 * height) * side), int((start + 1.3 * height) * side) + 1)


def _to_line(x: Plane, y: Plane, line: tuple[float, float, float, float]) -> Plane:
    """Distance of places from a piece of a line."""
    x0, y0, x1, y1 = line
    dx, dy = x1 - x0, y1 - y0
    t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    distance: Plane = np.hypot(x - x0 - t * dx, y - y0 - t * dy)
    return distance
