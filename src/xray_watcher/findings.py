"""What is found about one image: its scores, or why it is set aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from xray_watcher.core.calibration import scores
from xray_watcher.core.values import REJECTIONS, Rejection, Scores
from xray_watcher.errors import Unavailable
from xray_watcher.intake.decoding import Decoded, DecodeOutcome, Unreadable
from xray_watcher.model.engine import Engine

# On a slow processor a batch of a thousand takes longer than the watchdog waits.
_AT_ONCE = 64


def rejection_of(code: str) -> Rejection:
    """The rejection with a code of `REJECTIONS`, in the words that stand there."""
    return Rejection(code, REJECTIONS[code])


def unreadable(outcome: DecodeOutcome | None) -> Rejection | None:
    """Why a picture could not be decoded, if it was tried and could not."""
    return outcome.rejection if isinstance(outcome, Unreadable) else None


def scored(
    decoded: Sequence[Decoded], engine: Engine, beat: Callable[[], None]
) -> list[Scores | Rejection]:
    """Score pictures in the network.

    Args:
        decoded: any number of them.
        engine: the network.
        beat: is told of progress now and then.

    Raises:
        Unavailable: the network failed.
    """
    found: list[Scores | Rejection] = []
    for first in range(0, len(decoded), _AT_ONCE):
        pixels = np.stack([each.image.pixels for each in decoded[first : first + _AT_ONCE]])
        try:
            raw = engine.classify(pixels)
        except (RuntimeError, MemoryError) as error:
            raise Unavailable("model", f"The network failed on a batch: {error}") from error
        found += [_finding_of(engine, row.tolist()) for row in raw]
        beat()
    return found


def _finding_of(engine: Engine, raw: list[float]) -> Scores | Rejection:
    """Scores of one image; numbers that are none are a failure, never a level."""
    try:
        return scores(engine.labels, raw, engine.operating_points)
    except ValueError:
        return rejection_of("not_finite")
