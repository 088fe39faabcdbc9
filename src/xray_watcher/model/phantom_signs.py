"""The signs of the eleven conditions, as they are drawn into a phantom.

Some change how the patient is built (a wide heart, a broken rib), the others lay an opacity or
a clearing over the lungs. Each is a caricature of its textbook sign, not a model of disease.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Break:
    """Where a rib is broken: `sign` -1 is left in the picture; lengths in body coordinates.

    Attributes:
        sign: of x on that side.
        number: of the rib, from the top.
        at: distance from the midline.
        gap: half the width of the gap.
        offset: by how much the outer part is displaced downwards.
        slope: by how much it is bent.
    """

    sign: int
    number: int
    at: float
    gap: float
    offset: float
    slope: float


@dataclass(frozen=True, slots=True)
class Patient:
    """How a patient is built, in body coordinates (the trunk is about 2 wide and high).

    Attributes:
        heart_width: half axis along the heart.
        heart_height: half axis across it.
        heart_tilt: of its axis, in radians.
        mediastinum: half the width of the column of great vessels.
        domes: height of the two halves of the diaphragm, left in the picture first.
        chest_width: half the width of a lung.
        apex: top of the lungs.
        rib_spacing: from rib to rib.
        rib_start: height of the first rib at the spine.
        broken: ribs.
    """

    heart_width: float
    heart_height: float
    heart_tilt: float
    mediastinum: float
    domes: tuple[float, float]
    chest_width: float
    apex: float
    rib_spacing: float
    rib_start: float
    broken: tuple[Break, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Coordinates of every pixel: `x`, `y` of the body, `across`, `down` of the film; -1..1."""

    x: Picture
    y: Picture
    across: Picture
    down: Picture


@dataclass(frozen=True, slots=True)
class Body:
    """Masks from 0 to 1, `[side, side]`; `left` is the lung that is left in the picture."""

    trunk: Picture
    left: Picture
    right: Picture
    below: Picture
    vessels: Picture

    @property
    def lungs(self) -> Picture:
        """Both lungs."""
        return self.left + self.right


def soft(distance: Picture) -> Picture:
    """A smooth step: 0 far below zero, 1 far above, 0.5 at zero."""
    result: Picture = (0.5 + 0.5 * np.tanh(distance)).astype(np.float32)
    return result


def blend(picture: Picture, value: float | np.float32 | Picture, mask: Picture) -> Picture:
    """The picture with the mask's share of it replaced by a value."""
    return picture + (value - picture) * mask


# -- signs of the build -------------------------------------------------------------------


def _cardiomegaly(rng: np.random.Generator, patient: Patient) -> Patient:
    factor = rng.uniform(1.45, 1.75)
    return replace(
        patient,
        heart_width=patient.heart_width * factor,
        heart_height=patient.heart_height * rng.uniform(1.15, 1.3),
    )


def _wide_mediastinum(rng: np.random.Generator, patient: Patient) -> Patient:
    return replace(patient, mediastinum=rng.uniform(0.20, 0.27))


def _fracture(rng: np.random.Generator, patient: Patient) -> Patient:
    """Two neighbouring ribs are broken and their outer parts displaced."""
    sign, first = int(rng.choice((-1, 1))), int(rng.integers(2, 6))
    at, offset = rng.uniform(0.40, 0.58), rng.uniform(0.055, 0.075) * rng.choice((-1, 1))
    return replace(
        patient,
        broken=tuple(
            Break(
                sign,
                number,
                at + rng.uniform(-0.03, 0.03),
                gap=rng.uniform(0.018, 0.026),
                offset=float(offset),
                slope=rng.uniform(-0.15, 0.15),
            )
            for number in (first, first + 1)
        ),
    )


REBUILT: Mapping[str, Callable[[np.random.Generator, Patient], Patient]] = {
    "Cardiomegaly": _cardiomegaly,
    "Enlarged Cardiomediastinum": _wide_mediastinum,
    "Fracture": _fracture,
}
"""Signs that change how the patient is built."""


# -- signs in the lungs -------------------------------------------------------------------


def _lung(rng: np.random.Generator, body: Body) -> tuple[int, Picture]:
    """One of the two lungs: the sign of its x, and its mask."""
    return (-1, body.left) if rng.random() < 0.5 else (1, body.right)


def _effusion(rng: np.random.Generator, grid: Grid, body: Body, tissue: Picture) -> Picture:
    """Fluid fills the angle between rib cage and diaphragm and climbs along the wall."""
    sign, lung = _lung(rng, body)
    level = rng.uniform(0.06, 0.26)
    meniscus = level - 0.9 * np.square(np.clip(sign * grid.x - 0.30, 0, 1))
    return blend(tissue, 0.66, lung * soft((grid.y - meniscus) / 0.035) * 0.95)


def _atelectasis(rng: np.random.Generator, grid: Grid, body: Body, tissue: Picture) -> Picture:
    """Plates: a few dense, thin, nearly horizontal lines above the diaphragm."""
    sign, lung = _lung(rng, body)
    lowest = rng.uniform(0.20, 0.30)
    slope = rng.uniform(-0.22, 0.22)
    for number in range(int(rng.integers(2, 4))):
        line = lowest - 0.105 * number + slope * (sign * grid.x - 0.4)
        middle = 0.42 + rng.uniform(-0.05, 0.05)
        reach = soft((rng.uniform(0.15, 0.22) - np.abs(sign * grid.x - middle)) / 0.02)
        plate = soft((0.017 - np.abs(grid.y - line)) / 0.006) * reach
        tissue = blend(tissue, 0.62, plate * lung * 0.9)
    return tissue


def _pneumothorax(rng: np.random.Generator, grid: Grid, body: Body, tissue: Picture) -> Picture:
    """Air between wall and lung: a black rim without markings, inside it the pleural line."""
    sign, lung = _lung(rng, body)
    width = rng.uniform(0.13, 0.20)
    outwards = sign * grid.x
    edge = 0.405 + 0.10 * grid.y + 0.31 - width - 0.75 * np.square(np.clip(-grid.y - 0.25, 0, 1))
    tissue = blend(tissue, 0.035, lung * soft((outwards - edge) / 0.008))
    line = np.exp(-np.square((outwards - edge) / 0.009)) * lung
    return tissue + (0.20 * line).astype(np.float32)


def _edema(rng: np.random.Generator, grid: Grid, body: Body, tissue: Picture) -> Picture:
    """Haze on both sides around the hila, in the shape of a bat's wings."""
    spread, strength = rng.uniform(0.22, 0.28), rng.uniform(0.62, 0.8)
    distance = np.hypot((np.abs(grid.x) - 0.26) / spread, (grid.y + 0.02) / (spread * 1.35))
    haze = np.exp(-np.square(distance)) * (0.85 + 0.25 * np.minimum(body.vessels, 1))
    return blend(tissue, 0.60, body.lungs * np.clip(haze * strength, 0, 1).astype(np.float32))


def _consolidation(rng: np.random.Generator, grid: Grid, body: Body, tissue: Picture) -> Picture:
    """A dense area in which the air-filled bronchi stay dark."""
    sign, lung = _lung(rng, body)
    x0, y0 = 0.40 + rng.uniform(-0.05, 0.05), rng.uniform(-0.12, 0.20)
    u, v = sign * grid.x - x0, grid.y - y0
    wobble = 1 + 0.13 * np.sin(3 * np.arctan2(v, u) + rng.uniform(0, 6.28))
    area = soft((wobble - np.hypot(u / rng.uniform(0.15, 0.19), v / rng.uniform(0.15, 0.2))) / 0.1)
    tissue = blend(tissue, 0.68, lung * area * 0.95)
    for angle in rng.uniform(-0.25, 0.25) + np.array((-0.55, 0.0, 0.55)):
        along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        fork = across - 0.25 * np.clip(along, 0, 1) * np.sign(angle + 0.01)
        bronchus = soft((0.0125 - np.abs(fork)) / 0.005) * soft((0.13 - np.abs(along)) / 0.02)
        tissue = blend(tissue, 0.22, bronchus * area * lung * 0.85)
    return tissue


def _lesion(rng: np.random.Generator, grid: Grid, body: Body, tissue: Picture) -> Picture:
    """One round, sharply bounded mass."""
    sign, lung = _lung(rng, body)
    x0, y0 = rng.uniform(0.32, 0.50), rng.uniform(-0.45, 0.22)
    radius = rng.uniform(0.06, 0.09)
    distance = np.hypot(sign * grid.x - x0, grid.y - y0)
    return blend(tissue, 0.66, lung * soft((radius - distance) / 0.008) * rng.uniform(0.85, 1))


def _pneumonia(rng: np.random.Generator, grid: Grid, body: Body, tissue: Picture) -> Picture:
    """Many small, fluffy patches in the middle and lower part of one lung."""
    sign, lung = _lung(rng, body)
    patches = np.zeros_like(tissue)
    for _ in range(int(rng.integers(9, 14))):
        x0, y0 = rng.uniform(0.24, 0.60), rng.uniform(-0.20, 0.36)
        radius = rng.uniform(0.035, 0.06)
        square = np.square(sign * grid.x - x0) + np.square(grid.y - y0)
        patches = np.maximum(patches, np.exp(-square / radius**2))
    return blend(tissue, 0.58, lung * patches * np.float32(rng.uniform(0.7, 0.85)))


def _lobar_opacity(rng: np.random.Generator, grid: Grid, body: Body, tissue: Picture) -> Picture:
    """A veil over a whole upper lobe, bounded below by the straight fissure."""
    sign, lung = _lung(rng, body)
    fissure = rng.uniform(-0.24, -0.08) + rng.uniform(-0.25, 0.25) * (sign * grid.x - 0.4)
    return blend(tissue, 0.56, lung * soft((fissure - grid.y) / 0.012) * rng.uniform(0.6, 0.8))


OPACITIES: Mapping[str, Callable[[np.random.Generator, Grid, Body, Picture], Picture]] = {
    "Effusion": _effusion,
    "Atelectasis": _atelectasis,
    "Pneumothorax": _pneumothorax,
    "Edema": _edema,
    "Consolidation": _consolidation,
    "Lung Lesion": _lesion,
    "Pneumonia": _pneumonia,
    "Lung Opacity": _lobar_opacity,
}
"""Signs that change the density of the lungs."""
