"""The signs of the eleven conditions, each as its textbook picture.

A sign either changes the measures of the chest before it is drawn (`ALTER`), or adds something to
the drawn chest (`OVERLAY`), or both. Everything that varies is drawn from `rng`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from xray_watcher.phantom.anatomy import (
    Anatomy,
    Break,
    diaphragm,
    lung_borders,
    rib_ring,
)
from xray_watcher.phantom.chest import ABDOMEN, Chest
from xray_watcher.phantom.shapes import (
    EVERYWHERE,
    SIDES,
    Plane,
    Window,
    clouds,
    ellipse,
    step,
)

Alter = Callable[[np.random.Generator, Anatomy], Anatomy]
Overlay = Callable[[np.random.Generator, Chest], None]


# -- signs of the measures ----------------------------------------------------------------


def _cardiomegaly(rng: np.random.Generator, anatomy: Anatomy) -> Anatomy:
    """A heart wider than half the chest."""
    share = rng.uniform(0.60, 0.72)
    return replace(
        anatomy, heart_width=2 * anatomy.lung_width * share, heart_y=anatomy.heart_y - 0.02
    )


def _wide_mediastinum(rng: np.random.Generator, anatomy: Anatomy) -> Anatomy:
    """An upper mediastinum of about double width, with a large aortic knob."""
    return replace(
        anatomy,
        mediastinum=anatomy.mediastinum * rng.uniform(1.85, 2.4),
        aorta=anatomy.aorta * rng.uniform(1.3, 1.7),
    )


def _raised_diaphragm(rng: np.random.Generator, anatomy: Anatomy) -> Anatomy:
    """Lost volume draws both domes up."""
    rise = rng.uniform(0.05, 0.10)
    return replace(anatomy, domes=(anatomy.domes[0] + rise, anatomy.domes[1] + rise))


def _fracture(rng: np.random.Generator, anatomy: Anatomy) -> Anatomy:
    """Three or four neighbouring ribs broken in one line, the outer pieces displaced."""
    side, first = int(rng.choice(SIDES)), int(rng.integers(2, 5))
    u, sink = rng.uniform(0.32, 0.44), int(rng.choice((-1, 1)))
    breaks = tuple(
        Break(
            side=side,
            rib=first + number,
            u=u + rng.uniform(-0.03, 0.03),
            offset=sink * rng.uniform(2.6, 3.3) * anatomy.rib_half,
            gap=rng.uniform(0.022, 0.034),
        )
        for number in range(int(rng.integers(3, 5)))
    )
    return replace(anatomy, breaks=breaks)


def _haematoma(rng: np.random.Generator, chest: Chest) -> None:
    """Blood between the broken ribs and the pleura: a dense lens along the wall of the chest."""
    anatomy, grid = chest.anatomy, chest.grid
    side, middle = (
        anatomy.breaks[0].side,
        float(np.mean([_end_y(anatomy, b) for b in anatomy.breaks])),
    )
    from_middle = (grid.y - middle - 0.06) / rng.uniform(0.20, 0.27)
    depth = rng.uniform(0.11, 0.15) * np.maximum(1 - from_middle**2, 0)
    _, outer = lung_borders(anatomy, grid.y)
    _fill(chest, 0.85 * step(grid.x * side - outer + depth, 0.008) * (depth > 0))


def _end_y(anatomy: Anatomy, broken: Break) -> float:
    """The height at which a rib is broken."""
    middle, wide, high = rib_ring(anatomy, broken.rib)
    return middle - high * float(np.sqrt(1 - (broken.u / wide) ** 2))


# -- signs in the lungs -------------------------------------------------------------------


def _effusion(rng: np.random.Generator, chest: Chest) -> None:
    """Fluid that hides the diaphragm and climbs the outer wall: the meniscus."""
    anatomy, y = chest.anatomy, chest.grid.y
    for side in _one_or_both(rng, 0.3):
        u = chest.grid.x * side
        level = anatomy.angle_y - rng.uniform(0.30, 0.52)
        climb = rng.uniform(0.10, 0.20)
        outwards = np.clip(u / anatomy.lung_width, 0, 1.1)
        surface = level + climb * (1 - outwards**3)
        fluid = step(y - surface, 0.02) * step(anatomy.angle_y + 0.05 - y, 0.03)
        inside = step(anatomy.lung_width - u, 0.012) * step(u - 0.05, 0.05)
        _fill(chest, 0.96 * fluid * inside)
        # Fluid is as dense as what lies below the diaphragm, so that the dome cannot be seen.
        above = step(diaphragm(anatomy, side, np.maximum(u, 0)) - y, 0.009)
        chest.density += ABDOMEN * fluid * inside * above


def _pneumothorax(rng: np.random.Generator, chest: Chest) -> None:
    """The lung has come off the wall: a fine line, and beyond it air without markings."""
    side = _any_side(rng)
    u, y = chest.grid.x * side, chest.grid.y
    anatomy = chest.anatomy
    _, outer = lung_borders(anatomy, y)
    depth = rng.uniform(0.15, 0.27)
    down = np.clip((y - anatomy.apex_y) / (anatomy.angle_y - anatomy.apex_y), 0, 1)
    rim = depth * (1.12 - 0.70 * down)
    top = anatomy.apex_y + depth * rng.uniform(0.9, 1.2)
    edge = _least(outer - rim - u, y - top)
    beyond = step(-edge, 0.006) * step(u - 0.06, 0.03)
    chest.markings *= 1 - beyond
    chest.filling *= 1 - beyond
    lung = chest.lungs[side]
    line = step(0.0075 - np.abs(edge), 0.005) * np.minimum(lung * 3, 1)
    chest.density += 0.17 * line * step(u - 0.06, 0.03)
    chest.density -= 0.13 * beyond * np.minimum(lung * 2, 1)
    # The rest of the lung holds less air.
    _fill(chest, rng.uniform(0.14, 0.24) * step(edge, 0.006) * (u > 0))


def _edema(rng: np.random.Generator, chest: Chest) -> None:
    """Haze like the wings of a bat around both hila, and short lines at the edge of the base."""
    strength, reach = rng.uniform(0.62, 0.80), rng.uniform(0.27, 0.34)
    patches = 1 + 0.16 * clouds(rng, chest.grid, 26)
    middle = chest.anatomy.heart_y - 0.18
    for side in SIDES:
        u = chest.grid.x * side
        wing = ellipse(u, chest.grid.y, (0.20, middle), (reach, 1.25 * reach), 0.15)
        haze = strength * np.exp(-1.1 * np.maximum(0.7 - wing, 0)) * (u > 0)
        _fill(chest, haze * patches)
        _edge_lines(rng, chest, side)
    chest.markings *= 1.35


def _edge_lines(rng: np.random.Generator, chest: Chest, side: int) -> None:
    """Short level lines that end at the outer wall (Kerley's B lines)."""
    for y in chest.anatomy.angle_y - rng.uniform(0.12, 0.40, 6):
        _, outer = lung_borders(chest.anatomy, np.array([[y]], np.float32))
        end = float(outer[0, 0])
        window = _around(chest, side, (end - 0.05, float(y)), 0.08)
        u, height = _places(chest, side, window)
        line = step(0.005 - np.abs(height - y), 0.004)
        line = line * step(u - end + rng.uniform(0.06, 0.10), 0.01) * step(end - u, 0.01)
        chest.density[window] += 0.08 * line


def _consolidation(rng: np.random.Generator, chest: Chest) -> None:
    """One dense area with an uneven border, and in it the bronchi, which still hold air."""
    side = _any_side(rng)
    centre = (rng.uniform(0.36, 0.44), chest.anatomy.heart_y + rng.uniform(-0.12, 0.10))
    radii = (rng.uniform(0.18, 0.23), rng.uniform(0.18, 0.24))
    window = _around(chest, side, centre, 0.42)
    u, y = _places(chest, side, window)
    uneven = 0.22 * clouds(rng, chest.grid, 22)[window] + 0.10 * clouds(rng, chest.grid, 60)[window]
    shape = ellipse(u, y, centre, radii, rng.uniform(-0.5, 0.5))
    solid = step(shape + uneven, 0.30)
    _fill(chest, 0.93 * solid, window)
    tubes = _bronchi(rng, u, y, (0.12, chest.anatomy.heart_y - 0.2), centre)
    chest.density[window] -= 0.24 * tubes * solid * chest.lungs[side][window]


def _bronchi(
    rng: np.random.Generator,
    u: Plane,
    y: Plane,
    hilum: tuple[float, float],
    centre: tuple[float, float],
) -> Plane:
    """Dark tubes that fan out from the hilum through an area, thinner as they go."""
    towards = np.arctan2(centre[1] - hilum[1], centre[0] - hilum[0])
    dx, dy = u - np.float32(hilum[0]), y - np.float32(hilum[1])
    tubes = np.zeros((y.size, u.size), np.float32)
    for angle in towards + np.linspace(-0.45, 0.45, 4) + rng.normal(0, 0.05, 4):
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        across -= np.float32(rng.uniform(-0.35, 0.35)) * along * along
        half = 0.016 - 0.012 * np.clip(along, 0, 0.6)
        tubes = np.maximum(tubes, step(half - np.abs(across), 0.007) * (along > 0))
    return tubes


def _lesion(rng: np.random.Generator, chest: Chest) -> None:
    """A round, well-defined mass in the open lung."""
    side = _any_side(rng)
    radius = rng.uniform(0.065, 0.105)
    centre = (rng.uniform(0.34, 0.50), rng.uniform(-0.42, 0.20))
    window = _around(chest, side, centre, 1.4 * radius)
    u, y = _places(chest, side, window)
    # The border is a little uneven, as of something that has grown.
    uneven = 0.06 * clouds(rng, chest.grid, 40)[window]
    ball = ellipse(u, y, centre, (radius * rng.uniform(0.92, 1.08), radius)) + uneven
    chest.density[window] += rng.uniform(0.36, 0.46) * np.sqrt(np.maximum(ball, 0))


def _pneumonia(rng: np.random.Generator, chest: Chest) -> None:
    """Many fluffy patches that run together, spread over one or both lungs."""
    fluff = np.clip(
        1 + 0.35 * clouds(rng, chest.grid, 36) + 0.25 * clouds(rng, chest.grid, 80), 0, 2
    )
    for side in _one_or_both(rng, 0.35):
        patches = chest.grid.zeros()
        for _ in range(int(rng.integers(10, 15))):
            radius = rng.uniform(0.040, 0.075)
            centre = (rng.uniform(0.24, 0.58), rng.uniform(-0.38, 0.36))
            window = _around(chest, side, centre, 2.6 * radius)
            u, y = _places(chest, side, window)
            patch = np.exp(ellipse(u, y, centre, (1.2 * radius, radius)) - 1)
            patches[window] += rng.uniform(0.8, 1.1) * patch
        _fill(chest, 0.85 * np.tanh(patches * fluff))


def _opacity(rng: np.random.Generator, chest: Chest) -> None:
    """An even veil over the upper lobe, with the straight lower border of the fissure."""
    side = _any_side(rng)
    u, y = chest.grid.x * side, chest.grid.y
    fissure = rng.uniform(-0.22, -0.06) + rng.uniform(-0.10, 0.12) * u
    above = step(fissure - y, 0.008) * (u > 0)
    _fill(chest, rng.uniform(0.52, 0.72) * above)


def _atelectasis(rng: np.random.Generator, chest: Chest) -> None:
    """Plates of airless lung that lie as dense bands above the diaphragm."""
    for side in _one_or_both(rng, 0.5):
        u = chest.grid.x * side
        for number in range(int(rng.integers(2, 4))):
            middle, half = rng.uniform(0.36, 0.46), rng.uniform(0.15, 0.21)
            height = 0.07 + 0.085 * number + rng.uniform(-0.01, 0.02)
            floor = diaphragm(chest.anatomy, side, np.array([[middle]], np.float32))
            line = float(floor[0, 0]) - height + rng.uniform(-0.25, 0.30) * (u - middle)
            line = line - 0.5 * (u - middle) ** 2
            band = step(rng.uniform(0.013, 0.019) - np.abs(chest.grid.y - line), 0.010)
            chest.density += 0.30 * band * step(half - np.abs(u - middle), 0.05)


# -- what they share ----------------------------------------------------------------------


def _least(first: Plane, second: Plane) -> Plane:
    """The smaller of two distances, rounded where they meet."""
    least: Plane = (first + second - np.sqrt((first - second) ** 2 + 0.02)) / 2
    return least


def _any_side(rng: np.random.Generator) -> int:
    return int(rng.choice(SIDES))


def _one_or_both(rng: np.random.Generator, both: float) -> tuple[int, ...]:
    return SIDES if rng.random() < both else (_any_side(rng),)


def _fill(chest: Chest, part: Plane, window: Window = EVERYWHERE) -> None:
    """Replace a part of the air that is still there, in 0..1."""
    held = chest.filling[window]
    held += (1 - held) * np.clip(part, 0, 1)


def _around(chest: Chest, side: int, centre: tuple[float, float], radius: float) -> Window:
    x, y = side * centre[0], centre[1]
    return chest.grid.window(x - radius, x + radius, y - radius, y + radius)


def _places(chest: Chest, side: int, window: Window) -> tuple[Plane, Plane]:
    """`u` as a row and `y` as a column of the points in a window."""
    return chest.grid.x[:, window[1]] * side, chest.grid.y[window[0]]


def _same(_: np.random.Generator, anatomy: Anatomy) -> Anatomy:
    return anatomy


def _nothing(_: np.random.Generator, __: Chest) -> None:
    return


SIGNS: Mapping[str, tuple[Alter, Overlay]] = {
    "Atelectasis": (_raised_diaphragm, _atelectasis),
    "Consolidation": (_same, _consolidation),
    "Pneumothorax": (_same, _pneumothorax),
    "Edema": (_same, _edema),
    "Effusion": (_same, _effusion),
    "Pneumonia": (_same, _pneumonia),
    "Cardiomegaly": (_cardiomegaly, _nothing),
    "Lung Lesion": (_same, _lesion),
    "Fracture": (_fracture, _haematoma),
    "Lung Opacity": (_same, _opacity),
    "Enlarged Cardiomediastinum": (_wide_mediastinum, _nothing),
}
"""For each condition what it does to the measures, and what it adds to the chest."""
