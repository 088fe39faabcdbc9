"""The network's own test: what it says of drawn chests, before it is shown a patient's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xray_watcher.core.calibration import scores
from xray_watcher.core.catalogue import PHANTOM
from xray_watcher.errors import WeightsError
from xray_watcher.model.engine import Engine
from xray_watcher.phantom.drawing import draw

DRAWN = "Pneumothorax"
"""The sign in the drawing; what the phantom network must find in it."""

_SIDE = 224
_HALF_RANGE = 1024.0
_SEED = 1


def check_engine(engine: Engine) -> None:
    """Let the network score two drawn chests in one forward pass.

    Every score must be a number in 0..1, and the two chests must not score the same. The phantom
    network, which was trained on such drawings, must find what was drawn.

    Raises:
        WeightsError: it does not; the weights are damaged or are not what they are called.
        RuntimeError: the device failed or is out of memory.
    """
    raw = engine.classify(_chests())
    if not (np.isfinite(raw).all() and ((raw >= 0) & (raw <= 1)).all()):
        raise _failure(engine, "has scores that are no numbers in 0..1")
    if (raw[0] == raw[1]).all():
        raise _failure(engine, "scores two different chests the same")
    if engine.info.name == PHANTOM.name:
        found = scores(engine.labels, raw[1].tolist(), engine.operating_points)
        top = found.labels[np.argmax(found.calibrated)]
        if top != DRAWN:
            raise _failure(engine, f"found {top} where {DRAWN} was drawn")


def _chests() -> NDArray[np.float32]:
    """The same chest normal and with the sign, float32 `[2, 1, 224, 224]` in -1024..1024."""
    drawn = [draw(np.random.default_rng(_SEED), sign, side=_SIDE) for sign in (None, DRAWN)]
    pixels: NDArray[np.float32] = np.stack(drawn)[:, np.newaxis] * (2 * _HALF_RANGE) - _HALF_RANGE
    return pixels.astype(np.float32)


def _failure(engine: Engine, what: str) -> WeightsError:
    return WeightsError(
        f"The network {engine.info.name} failed its self-test: it {what}. Its weights are damaged "
        "or are not what they are called; check them with `xray-watcher weights verify`, or "
        "install them anew."
    )
