"""From the network's raw scores to calibrated ones, in which 0.5 is the operating point."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xray_watcher.core.values import Scores


def op_norm(score: float, operating_point: float) -> float:
    """Scale a score so that its operating point becomes 0.5; monotone, 0 and 1 stay.

    Source: `torchxrayvision.models.op_norm`, release 1.5.7.

    Args:
        score: sigmoid of a logit, in 0..1.
        operating_point: of that label, above 0 and below 1.

    Returns:
        The calibrated score, in 0..1.
    """
    if score < operating_point:
        return score / (2 * operating_point)
    return 1 - (1 - score) / (2 * (1 - operating_point))


def scores(
    labels: Sequence[str], raw: Sequence[float], operating_points: Sequence[float]
) -> Scores:
    """Calibrate one image's raw scores, each the sigmoid of a logit in 0..1.

    Raises:
        ValueError: a score is not a finite number in 0..1, or the lengths differ.
    """
    if not all(math.isfinite(score) for score in raw):
        raise ValueError("a score is not a finite number")
    calibrated = tuple(
        op_norm(score, point) for score, point in zip(raw, operating_points, strict=True)
    )
    return Scores(tuple(labels), tuple(raw), calibrated)
