"""Whether a quick number format gives the scores of float32, on images that are built in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from xray_watcher.core.calibration import scores
from xray_watcher.core.catalogue import WeightSet
from xray_watcher.model.architecture import SIDE
from xray_watcher.phantom.drawing import CONDITIONS, draw

MOST = 0.02
"""A score may move by this much, and a top label may change among scores this close."""

Floats = NDArray[np.float32]


def disagreement(
    weights: WeightSet, exact: Callable[[Floats], Floats], quick: Callable[[Floats], Floats]
) -> str | None:
    """Compare both ways of scoring.

    Args:
        weights: what the scores mean.
        exact: from float32 `[N, 1, 224, 224]` to sigmoids `[N, labels]`.
        quick: the same in another number format.

    Returns:
        What is wrong with the quick way, as the rest of a sentence; None if nothing is.
    """
    images = built_in_images()
    pairs = zip(exact(images).tolist(), quick(images).tolist(), strict=True)
    found = [_difference(weights, *pair) for pair in pairs]
    return next((wrong for wrong in found if wrong is not None), None)


def built_in_images() -> Floats:
    """Drawn chests, one normal and one of each condition: float32 `[12, 1, 224, 224]`."""
    drawn = [
        draw(np.random.default_rng(seed), condition, side=SIDE)
        for seed, condition in enumerate([None, *CONDITIONS])
    ]
    return (np.stack(drawn)[:, np.newaxis] * 2048 - 1024).astype(np.float32)


def _difference(weights: WeightSet, exact: Sequence[float], quick: Sequence[float]) -> str | None:
    try:
        ours = scores(weights.labels, quick, weights.trained_points).calibrated
    except ValueError:
        return "gives scores that are not numbers"
    right = scores(weights.labels, exact, weights.trained_points).calibrated
    moves = [abs(a - b) for a, b in zip(ours, right, strict=True)]
    if max(moves) > MOST:
        label = weights.labels[moves.index(max(moves))]
        return f"moves the score of {label} by {max(moves):.3f}, and {MOST} is the most"
    first, second = sorted(right, reverse=True)[:2]
    if first - second > MOST and ours.index(max(ours)) != right.index(first):
        return f"changes the top condition {weights.labels[right.index(first)]}"
    return None
