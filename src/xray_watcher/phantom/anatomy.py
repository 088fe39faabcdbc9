"""The measures of a phantom's chest, and the borders of its organs that follow from them.

A chest lives in a plane of its own: x from left to right and y from top to bottom, with the
film reaching from -1 to 1. `u` is the distance from the midline, the same on both sides. The
side -1 is the left of the picture, which is the patient's right; the heart points to +1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xray_watcher.phantom.shapes import Plane


@dataclass(frozen=True, slots=True)
class Break:
    """A broken rib: which one, where, and how far the outer piece has moved.

    Attributes:
        side: -1 or 1.
        rib: its number from the top, from 0.
        u: distance of the break from the midline.
        offset: how much lower (or higher, when negative) the outer piece lies.
        gap: half the distance between the two ends.
    """

    side: int
    rib: int
    u: float
    offset: float
    gap: float


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The measures of one chest, in units of half a film.

    Attributes:
        lung_width: midline to the outermost point of the lungs.
        apex_u: distance of the lungs' tips from the midline.
        apex_y: height of the lungs' tips.
        angle_y: height of the angles between ribs and diaphragm.
        domes: how far each side of the diaphragm rises above its angle.
        heart_width: greatest width of the heart.
        heart_y: height of the heart's middle.
        heart_tilt: radians by which the heart's axis points downwards.
        mediastinum: half the width of the upper mediastinum.
        aorta: radius of the aortic knob.
        rib_y: height of the first rib at the spine.
        rib_step: from one rib to the next.
        rib_half: half the width of a rib.
        rib_slope: how much the ribs fall towards the outside.
        breaks: ribs that are broken.
        clavicle_y: height of the clavicles' inner ends.
        clavicle_rise: how much higher the outer ends are.
        body_width: midline to the skin below the armpits.
        fat: density of the soft tissue in front of the lower lungs.
        bubble: radius of the air in the stomach.
    """

    lung_width: float
    apex_u: float
    apex_y: float
    angle_y: float
    domes: tuple[float, float]
    heart_width: float
    heart_y: float
    heart_tilt: float
    mediastinum: float
    aorta: float
    rib_y: float
    rib_step: float
    rib_half: float
    rib_slope: float
    breaks: tuple[Break, ...]
    clavicle_y: float
    clavicle_rise: float
    body_width: float
    fat: float
    bubble: float


def healthy(rng: np.random.Generator) -> Anatomy:
    """The measures of a normal chest."""
    lung_width = rng.uniform(0.66, 0.74)
    dome = rng.uniform(0.17, 0.23)
    apex_y = rng.uniform(-0.80, -0.73)
    return Anatomy(
        lung_width=lung_width,
        apex_u=rng.uniform(0.27, 0.31),
        apex_y=apex_y,
        angle_y=rng.uniform(0.58, 0.67),
        domes=(dome + rng.uniform(0.01, 0.05), dome),
        heart_width=lung_width * 2 * rng.uniform(0.41, 0.47),
        heart_y=rng.uniform(0.19, 0.25),
        heart_tilt=rng.uniform(0.45, 0.65),
        mediastinum=rng.uniform(0.105, 0.13),
        aorta=rng.uniform(0.06, 0.08),
        rib_y=apex_y + rng.uniform(0.00, 0.05),
        rib_step=rng.uniform(0.120, 0.134),
        rib_half=rng.uniform(0.021, 0.026),
        rib_slope=rng.uniform(-0.06, 0.02),
        breaks=(),
        clavicle_y=apex_y + rng.uniform(0.15, 0.20),
        clavicle_rise=rng.uniform(0.06, 0.16),
        body_width=lung_width + rng.uniform(0.14, 0.24),
        fat=rng.uniform(0.0, 0.10),
        bubble=rng.uniform(0.05, 0.11),
    )


def lung_borders(anatomy: Anatomy, y: Plane) -> tuple[Plane, Plane]:
    """Inner and outer border of the lungs: `u` at each height; equal above the tips."""
    v = np.clip((y - anatomy.apex_y) / (anatomy.angle_y - anatomy.apex_y), 0, 1)
    opening = np.sqrt(1 - (1 - v) ** 2.3)
    outer = anatomy.apex_u + (anatomy.lung_width - anatomy.apex_u) * opening
    inner = anatomy.apex_u - (anatomy.apex_u - 0.07) * np.sqrt(
        1 - (1 - np.clip(v / 0.4, 0, 1)) ** 2
    )
    return inner, outer


def diaphragm(anatomy: Anatomy, side: int, u: Plane) -> Plane:
    """Height of the diaphragm on one side: a dome that falls steeply to the outer angle."""
    rise = anatomy.domes[0 if side < 0 else 1]
    middle = 0.48 * anatomy.lung_width
    outwards = np.clip((u - middle) / (anatomy.lung_width - middle), 0, 1.2)
    inwards = np.clip((middle - u) / middle, 0, 1)
    height: Plane = anatomy.angle_y - rise * (1 - outwards**2.4 - 0.35 * inwards**2)
    return height


def rib_ring(anatomy: Anatomy, rib: int) -> tuple[float, float, float]:
    """A rib is seen as a flat ring: the height of its middle, its half width and half height."""
    y = anatomy.rib_y + rib * anatomy.rib_step
    high = 0.10 + 0.135 * min(1.0, (rib + 1) / 4)
    _, outer = lung_borders(anatomy, np.array([[y + 0.9 * high]], np.float32))
    return y + high, float(outer[0, 0]) + 0.010, high
