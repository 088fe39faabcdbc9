"""What a chest is made of, drawn from its measures: each organ adds to how it weakens the rays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xray_watcher.phantom.anatomy import (
    Anatomy,
    Break,
    diaphragm,
    lung_borders,
    rib_ring,
)
from xray_watcher.phantom.shapes import (
    SIDES,
    Grid,
    Plane,
    blur,
    bone,
    clouds,
    ellipse,
    round_profile,
    step,
)

# How much each tissue weakens the ray; the trunk at its thickest is 1.
_AIR = 0.64
_HEART = 0.20
_MEDIASTINUM = 0.16
ABDOMEN = 0.24
_SPINE = 0.13
_RIB = 0.19
_CLAVICLE = 0.19
_VESSEL = 0.19

_DISPLACED = 0.72
"""The part of the lung's air that is missing in front of and behind the heart."""
_VESSELS_Y = (-1.2, -0.95, -0.75, -0.45, -0.15, 0.08, 1.2)
_VESSELS_WIDTH = (0.45, 0.5, 0.75, 1.0, 1.06)
"""How the width of the great vessels changes with the height; the last two are the heart's."""
_CALIBRES = ((2.3, 1.1, (0.0, 0.22)), (1.4, 1.2, (0.2, 0.5)), (0.8, 1.3, (0.45, 1.0)))
"""Vessels: width in points of a plane of 512, strength, and the part of their way that has it."""


@dataclass
class Chest:
    """A chest that signs may still be added to.

    Attributes:
        grid: the plane.
        anatomy: the measures that it was drawn from.
        lungs: for each of `SIDES` the depth of air `[n, n]`, in 0..1.
        filling: `[n, n]`, the part of the air that is replaced by something dense, in 0..1.
        markings: `[n, n]`, how strongly vessels show, 1 in a healthy lung.
        vessels: `[n, n]`, density of the vessels in full lungs.
        density: `[n, n]`, everything else that weakens the ray.
    """

    grid: Grid
    anatomy: Anatomy
    lungs: dict[int, Plane]
    filling: Plane
    markings: Plane
    vessels: Plane
    density: Plane

    def total(self) -> Plane:
        """The sum along the ray `[n, n]`: near 0 in plain air, up to about 2 behind the heart."""
        air = self.lungs[-1] + self.lungs[1]
        held = air * (1 - np.clip(self.filling, 0, 1))
        vessels = _VESSEL * self.vessels * np.clip(held * 1.6, 0, 1) * self.markings
        total: Plane = np.maximum(self.density - _AIR * held + vessels, 0)
        return total


def chest(rng: np.random.Generator, anatomy: Anatomy, side: int) -> Chest:
    """Draw a chest.

    Args:
        rng: for vessels and the texture of the tissues.
        anatomy: its measures.
        side: points along each axis of the plane.
    """
    grid = Grid(side)
    density = _trunk(grid, anatomy)
    density *= 1 + 0.05 * clouds(rng, grid, 9)
    heart, mediastinum = _heart(grid, anatomy), _mediastinum(grid, anatomy)
    density += np.maximum(_HEART * heart, _MEDIASTINUM * mediastinum)
    for draw in (_arms, _abdomen, _spine, _hila, _ribs, _clavicles, _windpipe):
        draw(grid, anatomy, density)
    room = 1 - _DISPLACED * np.maximum(heart, mediastinum)
    lungs: dict[int, Plane] = {each: lung(grid, anatomy, each) * room for each in SIDES}
    return Chest(
        grid=grid,
        anatomy=anatomy,
        lungs=lungs,
        filling=np.clip(0.05 + 0.035 * clouds(rng, grid, 40), 0, 1),
        markings=np.ones_like(density),
        vessels=_vessels(rng, grid, anatomy),
        density=density,
    )


# -- lungs --------------------------------------------------------------------------------


def lung(grid: Grid, anatomy: Anatomy, side: int) -> Plane:
    """Depth of air in one lung `[n, n]`, in 0..1."""
    window = grid.half(side, (0.0, 0.8), anatomy.apex_y, anatomy.angle_y + 0.02)
    u, y = grid.places(window)
    inner, outer = lung_borders(anatomy, y)
    air = grid.zeros()
    air[window] = round_profile(np.minimum(outer - u, u - inner), 0.22)
    air[window] *= step(diaphragm(anatomy, side, u) - y, 0.009)
    return air


def _vessels(rng: np.random.Generator, grid: Grid, anatomy: Anatomy) -> Plane:
    """Vessels that branch from both hila, thick at first and thin at the end."""
    unit = grid.side / 512
    x, y = _branches(rng, anatomy)
    total = grid.zeros()
    window = grid.window(-0.8, 0.8, -0.9, 0.75)
    for sigma, strength, part in _CALIBRES:
        steps = slice(int(part[0] * x.shape[1]), int(part[1] * x.shape[1]))
        points = grid.zeros()
        points.ravel()[grid.cell(x[:, steps], y[:, steps])] = strength * sigma
        total[window] += blur(points[window], max(sigma * unit, 0.4))
    return total


def _branches(rng: np.random.Generator, anatomy: Anatomy) -> tuple[Plane, Plane]:
    """Places along all vessels `[vessels, steps]`; each trunk ends in four branches."""
    trunks, steps, pace = 26, 150, 0.0048
    bend = rng.normal(0, 0.035, (trunks, 1, steps)) + rng.normal(0, 0.02, (trunks, 4, steps))
    bend[:, :, : steps // 5] = bend[:, :1, : steps // 5]
    bend[:, 1::2, steps // 5] += rng.uniform(0.4, 0.9, (trunks, 1))
    bend[:, 2:, steps // 3] -= rng.uniform(0.4, 0.9, (trunks, 1))
    start = np.concatenate([np.linspace(-1.45, 1.45, trunks // 2)] * 2) + rng.normal(0, 0.1, trunks)
    angle = (start[:, np.newaxis, np.newaxis] + np.cumsum(bend, axis=2)).reshape(-1, steps)
    side = np.repeat([-1.0, 1.0], trunks * 2)[:, np.newaxis]
    hilum_y = anatomy.heart_y - 0.24 + rng.normal(0, 0.03, (trunks, 1)).repeat(4, axis=0)
    x = side * (0.13 + pace * np.cumsum(np.cos(angle), axis=1))
    y = hilum_y + pace * np.cumsum(np.sin(angle), axis=1)
    return x.astype(np.float32), y.astype(np.float32)


# -- everything else, added to the density -------------------------------------------------


def _trunk(grid: Grid, anatomy: Anatomy) -> Plane:
    """Soft tissue: neck, shoulders and chest, thinner towards the skin."""
    heights = (-1.2, -1.02, -0.92, -0.80, -0.62, -0.40, -0.15, 0.3, 1.2)
    shares = (0.24, 0.26, 0.40, 0.85, 1.30, 1.30, 1.04, 1.0, 1.06)
    outline = anatomy.body_width * np.interp(grid.y, heights, shares).astype(np.float32)
    deep = np.interp(grid.y, (-1.2, -0.7, 0.2, 1.2), (0.78, 0.86, 1.0, 1.06)).astype(np.float32)
    t = np.clip(np.abs(grid.x) / outline, 0, 1)
    plane: Plane = deep * np.sqrt(1 - t**3)
    return plane


def _arms(grid: Grid, anatomy: Anatomy, density: Plane) -> None:
    """Heads of the upper arms, shoulder blades, and breast tissue."""
    for side in SIDES:
        window = grid.half(side, (0.02, 1.2), -0.9, 0.8)
        u, y, part = np.abs(grid.x[:, window[1]]), grid.y[window[0]], density[window]
        head = ellipse(u, y, (anatomy.body_width + 0.13, -0.62), (0.13, 0.15))
        part += 0.20 * round_profile(head, 0.5)
        blade = ellipse(u, y, (anatomy.lung_width + 0.10, -0.30), (0.13, 0.42), -0.22)
        part += 0.055 * step(blade, 0.06)
        breast = ellipse(u, y, (0.40, 0.30), (0.36, 0.34), 0.2)
        part += anatomy.fat * np.sqrt(np.maximum(breast, 0))


def _abdomen(grid: Grid, anatomy: Anatomy, density: Plane) -> None:
    """Liver and stomach below the diaphragm, with the air that stands in the stomach."""
    for side in SIDES:
        window = grid.half(side, (0.0, 0.95), 0.0, 2.0)
        u, y = grid.places(window)
        below = step(y - diaphragm(anatomy, side, u), 0.009)
        density[window] += ABDOMEN * below * step(anatomy.lung_width * 1.02 - u, 0.08)
    top = anatomy.angle_y - anatomy.domes[1]
    centre = (0.34, top + 0.07 + anatomy.bubble * 0.8)
    window = grid.window(0.1, 0.6, centre[1] - 0.2, centre[1] + 0.2)
    x, y = grid.x[:, window[1]], grid.y[window[0]]
    bubble = ellipse(x, y, centre, (anatomy.bubble * 1.5, anatomy.bubble), 0.15)
    density[window] -= 0.34 * round_profile(bubble, 0.6)


def _spine(grid: Grid, anatomy: Anatomy, density: Plane) -> None:
    """Vertebrae with the gaps between them, and their processes."""
    rows, columns = slice(None), grid.window(-0.2, 0.2, -2, 2)[1]
    x, y = grid.x[:, columns], grid.y
    phase = (y - anatomy.rib_y) / anatomy.rib_step
    bodies = 0.72 + 0.28 * np.tanh(4 * np.cos(2 * np.pi * phase) + 2.4)
    waist = 0.078 + 0.006 * np.cos(2 * np.pi * phase)
    density[rows, columns] += _SPINE * bodies * step(waist - np.abs(x), 0.008)
    near = phase - np.rint(phase)
    pedicle = 1 - ((np.abs(x) - 0.05) / 0.016) ** 2 - (near / 0.17) ** 2
    density[rows, columns] += 0.05 * np.sqrt(np.maximum(pedicle, 0))
    process = 1 - (x / 0.013) ** 2 - ((near - 0.25) / 0.24) ** 2
    density[rows, columns] += 0.06 * np.sqrt(np.maximum(process, 0))


def _mediastinum(grid: Grid, anatomy: Anatomy) -> Plane:
    """The column of great vessels with the aortic knob: its thickness `[n, n]`, in 0..1."""
    widths = (*(share * anatomy.mediastinum for share in _VESSELS_WIDTH), 0.175, 0.175)
    half = np.interp(grid.y, _VESSELS_Y, widths).astype(np.float32)
    column = round_profile(half - np.abs(grid.x - 0.01), 0.09) * step(0.35 - grid.y, 0.2)
    window = grid.window(-0.5, 0.5, -0.7, 0.0)
    centre = (anatomy.mediastinum * 0.72, -0.34)
    radii = (anatomy.aorta * 1.25, anatomy.aorta * 1.45)
    knob = ellipse(grid.x[:, window[1]], grid.y[window[0]], centre, radii)
    column[window] = np.maximum(column[window], np.sqrt(np.maximum(knob, 0)))
    return column


def _heart(grid: Grid, anatomy: Anatomy) -> Plane:
    """Left ventricle with its apex and right atrium: their thickness `[n, n]`, in 0..1."""
    width, y = anatomy.heart_width, anatomy.heart_y
    window = grid.window(-width, width, y - width, y + width)
    x, y_ = grid.x[:, window[1]], grid.y[window[0]]
    left = ellipse(
        x, y_, (0.16 * width, y + 0.02), (0.56 * width, 0.40 * width), anatomy.heart_tilt
    )
    right = ellipse(x, y_, (-0.085 * width, y - 0.01), (0.275 * width, 0.36 * width))
    heart = grid.zeros()
    heart[window] = round_profile(np.maximum(left, right), 0.7)
    return heart


def _hila(grid: Grid, anatomy: Anatomy, density: Plane) -> None:
    for side in SIDES:
        window = grid.half(side, (0.02, 0.32), -0.4, 0.3)
        u, y = grid.places(window)
        hilum = ellipse(u, y, (0.15, anatomy.heart_y - 0.25 + 0.015 * side), (0.07, 0.12), -0.35)
        density[window] += 0.13 * np.maximum(hilum, 0)


def _ribs(grid: Grid, anatomy: Anatomy, density: Plane) -> None:
    for side in SIDES:
        for rib in range(10):
            breaks = tuple(b for b in anatomy.breaks if (b.side, b.rib) == (side, rib))
            _rib(grid, anatomy, density, side, rib, breaks)


def _rib(
    grid: Grid, anatomy: Anatomy, density: Plane, side: int, rib: int, breaks: tuple[Break, ...]
) -> None:
    """One rib: the back from the spine outwards, and the fainter front on its way down."""
    middle, wide, high = rib_ring(anatomy, rib)
    spare = 0.08 + max((abs(b.offset) for b in breaks), default=0.0)
    window = grid.half(side, (0.055, wide + 0.06), middle - high - spare, middle + high + spare)
    u, y = grid.places(window)
    moved, whole = _broken(u, breaks)
    across = y - middle - anatomy.rib_slope * u
    # Only the back is broken; the front keeps its place.
    across = across - moved * (across < 0)
    ring = (u / wide) ** 2 + (across / high) ** 2
    slope = 2 * np.sqrt((u / wide**2) ** 2 + (across / high**2) ** 2)
    shape = bone((ring - 1) / np.maximum(slope, 1e-3), anatomy.rib_half)
    front = 0.55 * step(u - 0.27 - 0.012 * rib, 0.04)
    density[window] += _RIB * shape * np.where(across < 0, whole, front)


def _broken(u: Plane, breaks: tuple[Break, ...]) -> tuple[Plane, Plane]:
    """How far a rib has moved at each `u`, and how dense it is: 0 in a gap, 1 where it is whole."""
    moved, whole = np.zeros_like(u), np.ones_like(u)
    for b in breaks:
        outwards = u - b.u
        # The outer piece stands off at its broken end and is tilted back to its old place.
        moved += b.offset * step(outwards, 0.004) * np.exp(-np.maximum(outwards, 0) / 0.20)
        past = np.abs(outwards) - b.gap
        # The ends are jagged and partly overlap, which makes them dense.
        whole *= step(past, 0.004) * (1 + 1.6 * np.exp(-np.maximum(past, 0) / 0.025))
    return moved, whole


def _clavicles(grid: Grid, anatomy: Anatomy, density: Plane) -> None:
    for side in SIDES:
        top = anatomy.clavicle_y
        window = grid.half(side, (0.07, 0.85), top - 0.4, top + 0.12)
        u, y = grid.places(window)
        t = np.clip((u - 0.09) / 0.62, 0, 1.3)
        line = top - anatomy.clavicle_rise * t - 0.03 * np.sin(2 * np.pi * t)
        half = 0.024 + 0.010 * (1 - t) ** 2
        tips = step(u - 0.09, 0.015) * step(0.74 - u, 0.03)
        density[window] += _CLAVICLE * bone((y - line) * 0.027 / half, 0.027) * tips


def _windpipe(grid: Grid, anatomy: Anatomy, density: Plane) -> None:
    """The trachea, and where it divides."""
    fork = anatomy.heart_y - 0.38
    window = grid.window(-0.25, 0.25, -1.2, fork + 0.2)
    x, y = grid.x[:, window[1]], grid.y[window[0]]
    down = np.maximum(y - fork, 0)
    near = step(0.030 - np.abs(np.abs(x) - 0.9 * down), 0.012)
    density[window] -= 0.10 * near * step(0.14 - down, 0.04)
