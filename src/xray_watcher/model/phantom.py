"""Drawn chests: a stylised radiograph in numpy, with or without the sign of a condition.

Bright is dense, as on a film. The picture is a sum of simple shapes in coordinates of the
body, x from -1 (left in the picture, the patient's right) to 1 and y from -1 (top) to 1, which
are turned, shifted and stretched a little for every patient. The drawings mean nothing on
patients; they are for demonstrations, tests and the phantom network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_watcher.core.catalogue import UNTRAINED
from xray_watcher.model.phantom_signs import OPACITIES, REBUILT, Body, Grid, Patient, blend, soft

CONDITIONS: tuple[str, ...] = UNTRAINED.labels
"""What can be drawn: the trained labels of CheXpert's weight set."""

Picture = NDArray[np.floating[Any]]

_SOFT_TISSUE = np.float32(0.56)
_LUNG = np.float32(0.15)
_HEART = np.float32(0.64)
_ABDOMEN = np.float32(0.72)
_GAS = np.float32(0.34)
_STROKES = {  # of the laterality marker, in a unit square
    "L": (((0.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (0.7, 1.0))),
    "R": (
        ((0.0, 0.0), (0.0, 1.0)),
        ((0.0, 0.0), (0.7, 0.05)),
        ((0.7, 0.05), (0.7, 0.45)),
        ((0.7, 0.45), (0.0, 0.5)),
        ((0.0, 0.5), (0.8, 1.0)),
    ),
}


def draw(rng: np.random.Generator, condition: str | None, *, side: int = 512) -> Picture:
    """Draw one chest.

    Args:
        rng: varies anatomy, position, exposure and noise; the same state draws the same picture.
        condition: one of `CONDITIONS`, or None for a normal chest.
        side: of the picture, in pixels.

    Returns:
        float32 `[side, side]`, from 0 (black) to 1 (white).

    Raises:
        KeyError: the condition is not one of `CONDITIONS`.
    """
    patient = _patient(rng)
    if condition is not None and condition in REBUILT:
        patient = REBUILT[condition](rng, patient)
    grid = _grid(rng, side)
    body = _body(rng, grid, patient)
    tissue = _tissue(rng, grid, patient, body)
    if condition is not None and condition not in REBUILT:
        tissue = OPACITIES[condition](rng, grid, body, tissue)
    picture = tissue + _bones(grid, patient, body)
    return _exposed(rng, grid, picture)


def to_uint8(picture: Picture) -> NDArray[np.uint8]:
    """The picture in 8 bits, 0..255."""
    return np.round(picture * 255).astype(np.uint8)


def to_uint16(picture: Picture) -> NDArray[np.uint16]:
    """The picture in 16 bits, 0..65535."""
    return np.round(picture * 65535).astype(np.uint16)


def frame(picture: Picture, width: int, height: int) -> Picture:
    """Put a picture in the middle of a larger black film, as a collimator leaves it.

    Args:
        picture: `[side, side]`.
        width: of the film in pixels, at least the side.
        height: likewise.
    """
    side = len(picture)
    film = np.zeros((height, width), np.float32)
    top, left = (height - side) // 2, (width - side) // 2
    film[top : top + side, left : left + side] = picture
    return film


# -- the patient --------------------------------------------------------------------------


def _patient(rng: np.random.Generator) -> Patient:
    return Patient(
        heart_width=rng.uniform(0.235, 0.285),
        heart_height=rng.uniform(0.21, 0.26),
        heart_tilt=rng.uniform(0.35, 0.6),
        mediastinum=rng.uniform(0.085, 0.12),
        domes=(rng.uniform(0.38, 0.44), rng.uniform(0.43, 0.50)),
        chest_width=rng.uniform(0.29, 0.33),
        apex=rng.uniform(-0.80, -0.74),
        rib_spacing=rng.uniform(0.135, 0.155),
        rib_start=rng.uniform(-0.80, -0.72),
        broken=(),
    )


def _grid(rng: np.random.Generator, side: int) -> Grid:
    """The body's coordinates of every pixel: turned by up to 4 degrees, shifted, stretched."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    across, down = np.meshgrid(axis, axis)
    angle = np.float32(np.deg2rad(rng.uniform(-4, 4)))
    scale = np.float32(rng.uniform(0.94, 1.08))
    shift_x, shift_y = rng.uniform(-0.05, 0.05, 2).astype(np.float32)
    x = (across * np.cos(angle) - down * np.sin(angle)) * scale + shift_x
    y = (across * np.sin(angle) + down * np.cos(angle)) * scale + shift_y
    return Grid(x, y, across, down)


def _body(rng: np.random.Generator, grid: Grid, patient: Patient) -> Body:
    """The masks, each from 0 to 1: trunk, both lungs, what lies under the diaphragm."""
    x, y = grid.x, grid.y
    shoulder = 0.34 + 0.60 * soft((y + 0.80) / 0.09)
    trunk = soft((shoulder - np.abs(x)) / 0.02)
    below = np.zeros_like(x)
    lungs = []
    for sign, dome in zip((-1, 1), patient.domes, strict=True):
        outwards = sign * x
        middle = 0.405 + 0.10 * y
        across = (outwards - middle) / patient.chest_width
        along = (y + 0.10) / (-0.10 - patient.apex)
        inside = soft((1 - np.abs(across) ** 2.6 - np.abs(along) ** 2.6 * (y < -0.10)) / 0.07)
        floor = dome + 0.55 * np.square(outwards - 0.36) + 0.9 * np.clip(outwards - 0.52, 0, 1) ** 2
        over = soft((floor - y) / 0.012)
        lungs.append(inside * over)
        below = np.maximum(below, (1 - over) * (outwards > 0))
    vessels = _vessels(rng, grid)
    return Body(trunk, lungs[0], lungs[1], below * trunk, vessels)


def _vessels(rng: np.random.Generator, grid: Grid) -> Picture:
    """Branching markings, densest around the hila, from 0 to about 1."""
    x, y = grid.x, grid.y
    markings = np.zeros_like(x)
    distance = np.hypot(np.abs(x) - 0.14, y + 0.02)
    bearing = np.arctan2(y + 0.02, np.abs(x) - 0.14)
    for side in (x < 0, x >= 0):
        phases = rng.uniform(0, 2 * np.pi, 3).astype(np.float32)
        wave = np.cos(9 * bearing + 7 * distance + phases[0])
        wave += np.cos(17 * bearing - 9 * distance + phases[1])
        wave += 0.7 * np.cos(29 * bearing + 5 * distance + phases[2])
        markings += side * np.clip(wave - 0.9, 0, 2) * 0.6
    hila = 0.9 * np.exp(-np.square(distance / 0.10))
    return (markings * np.exp(-distance / 0.30) + hila).astype(np.float32)


# -- what is drawn ------------------------------------------------------------------------


def _tissue(rng: np.random.Generator, grid: Grid, patient: Patient, body: Body) -> Picture:
    x, y = grid.x, grid.y
    edge_shade = 0.10 * np.square(np.clip(np.abs(x), 0, 1))
    tissue = body.trunk * (_SOFT_TISSUE - edge_shade)
    tissue = blend(tissue, _LUNG, body.lungs)
    tissue += 0.13 * body.vessels * body.lungs
    tissue = blend(tissue, _ABDOMEN, body.below)
    bubble = np.hypot((x - 0.36) / rng.uniform(0.10, 0.15), (y - patient.domes[1] - 0.16) / 0.07)
    tissue = blend(tissue, _GAS, soft((1 - bubble) / 0.15) * body.below * rng.uniform(0.4, 1))
    tissue = blend(tissue, _HEART, _heart(grid, patient) * (1 - body.below))
    tissue = blend(tissue, _HEART + 0.02, _mediastinum(grid, patient) * body.trunk)
    return tissue + 0.05 * _spine(grid) * body.trunk


def _heart(grid: Grid, patient: Patient) -> Picture:
    x, y = grid.x - 0.06 - 0.42 * (patient.heart_width - 0.22), grid.y - 0.23
    cos, sin = np.cos(patient.heart_tilt), np.sin(patient.heart_tilt)
    along = (x * cos + y * sin) / patient.heart_width
    across = (y * cos - x * sin) / patient.heart_height
    return soft((1 - np.hypot(along, across)) / 0.045)


def _mediastinum(grid: Grid, patient: Patient) -> Picture:
    """The column of great vessels, with the aortic knob on the patient's left."""
    x, y = grid.x, grid.y
    flare = patient.mediastinum + 0.03 * np.square(np.clip(y + 0.4, 0, 1.5))
    column = soft((flare - np.abs(x - 0.01)) / 0.016)
    knob = soft((1 - np.hypot((x - 0.085) / 0.075, (y + 0.36) / 0.085)) / 0.12)
    return np.maximum(column, knob)


def _spine(grid: Grid) -> Picture:
    vertebrae = 0.6 + 0.4 * np.cos(grid.y * 46)
    return soft((0.07 - np.abs(grid.x)) / 0.014) * vertebrae.astype(np.float32)


def _bones(grid: Grid, patient: Patient, body: Body) -> Picture:
    bones = np.zeros_like(grid.x)
    for sign in (-1, 1):
        for number in range(9):
            height = patient.rib_start + patient.rib_spacing * number
            window = _window(grid, sign, height - 0.2, height + 0.75)
            rib = _rib(_cut(grid, window), patient, sign, number)
            bones[window] = np.maximum(bones[window], rib)
    bones *= body.trunk * (1 - 0.85 * body.below)
    for sign in (-1, 1):
        bones = np.maximum(bones, _clavicle(grid, sign) * body.trunk)
    return bones


def _window(grid: Grid, sign: int, top: float, bottom: float) -> tuple[slice, slice]:
    """The rows and columns that hold all of one side between two heights: a rib needs no more."""
    rows = np.flatnonzero((grid.y.max(axis=1) > top) & (grid.y.min(axis=1) < bottom))
    columns = np.flatnonzero((sign * grid.x).max(axis=0) > 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _cut(grid: Grid, window: tuple[slice, slice]) -> Grid:
    return Grid(grid.x[window], grid.y[window], grid.across[window], grid.down[window])


def _rib(grid: Grid, patient: Patient, sign: int, number: int) -> Picture:
    """The rear part of a rib, which runs outwards and down, and its fainter front part."""
    outwards = sign * grid.x
    way = np.clip((outwards - 0.06) / 0.66, 0, 1)
    height = patient.rib_start + patient.rib_spacing * number
    bow = 0.10 * np.sin(way * 2.2) * (1 if number else 0.4)
    rear = height - bow + 0.30 * way**2.4
    front = height + 0.20 + 0.42 * (1 - way) - 0.05 * np.sin(way * 3)
    reach = soft((outwards - 0.07) / 0.012) * soft((0.735 + 0.02 * number - outwards) / 0.012)
    for one in patient.broken:
        if (one.sign, one.number) == (sign, number):
            beyond = outwards > one.at
            rear = rear + beyond * (one.offset + one.slope * (outwards - one.at))
            reach = reach * soft((np.abs(outwards - one.at) - one.gap) / 0.006)
    lower = soft((outwards - 0.30) / 0.03) * reach if number < 7 else 0.0
    behind = 0.15 * _band(grid.y - rear, 0.021) * reach
    return np.maximum(behind, 0.06 * _band(grid.y - front, 0.022) * lower)


def _band(distance: Picture, half_width: float) -> Picture:
    """A bone seen from the side: denser at its two edges than in its middle."""
    inside = soft((half_width - np.abs(distance)) / 0.005)
    edges = np.exp(-np.square((np.abs(distance) - half_width * 0.85) / 0.007))
    return inside * (0.62 + 0.38 * edges)


def _clavicle(grid: Grid, sign: int) -> Picture:
    outwards = sign * grid.x
    line = -0.60 - 0.30 * outwards + 0.10 * np.sin(outwards * 7)
    reach = soft((outwards - 0.09) / 0.01) * soft((0.86 - outwards) / 0.02)
    return 0.19 * _band(grid.y - line, 0.028) * reach


# -- the film -----------------------------------------------------------------------------


def _exposed(rng: np.random.Generator, grid: Grid, density: Picture) -> Picture:
    """Exposure, scatter, noise, laterality marker and collimator border."""
    side = len(density)
    picture = np.clip(density, 0, 1) ** rng.uniform(0.85, 1.20)
    picture = rng.uniform(0.01, 0.06) + picture * rng.uniform(0.88, 1.08)
    picture += _cloud(rng, side, 5, 0.02) + _cloud(rng, side, 40, 0.012)
    picture += rng.normal(0, rng.uniform(0.004, 0.016), (side, side)).astype(np.float32)
    picture = np.maximum(picture, _marker(rng, grid))
    border = rng.uniform(-0.02, 0.05, 4)
    across, down = grid.across, grid.down
    inside = (across > border[0] - 1) & (across < 1 - border[1])
    inside &= (down > border[2] - 1) & (down < 1 - border[3])
    return (np.clip(picture, 0, 1) * inside).astype(np.float32)


def _cloud(rng: np.random.Generator, side: int, cells: int, strength: float) -> Picture:
    """Smooth noise: a coarse grid of random numbers, linearly in between."""
    coarse = rng.normal(0, strength, (cells, cells))
    at = np.linspace(0, cells - 1, side)
    low = np.minimum(at.astype(np.intp), cells - 2)
    part = (at - low)[:, np.newaxis]
    rows = coarse[low] * (1 - part) + coarse[low + 1] * part
    columns = rows.T[low] * (1 - part) + rows.T[low + 1] * part
    return columns.T.astype(np.float32)


def _marker(rng: np.random.Generator, grid: Grid) -> Picture:
    """The letter that tells the patient's side, of lead, in an upper corner."""
    letter = "L" if rng.random() < 0.5 else "R"
    left = rng.uniform(0.80, 0.86) if letter == "L" else rng.uniform(-0.92, -0.86)
    top, size = rng.uniform(-0.92, -0.80), 0.075
    u, v = (grid.across - left) / size, (grid.down - top) / size
    near = np.full_like(u, np.inf)
    for (x0, y0), (x1, y1) in _STROKES[letter]:
        along = ((u - x0) * (x1 - x0) + (v - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
        along = np.clip(along, 0, 1)
        near = np.minimum(near, np.hypot(u - x0 - along * (x1 - x0), v - y0 - along * (y1 - y0)))
    return soft((0.13 - near) / 0.05) * np.float32(rng.uniform(0.85, 1.0))
