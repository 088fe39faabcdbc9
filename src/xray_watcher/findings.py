"""What is found about one image: its scores, or why it is set aside."""

from __future__ import annotations

from xray_watcher.core.calibration import scores
from xray_watcher.core.values import REJECTIONS, Rejection, Scores
from xray_watcher.intake.decoding import DecodeOutcome, Unreadable
from xray_watcher.model.engine import Engine


def rejection_of(code: str) -> Rejection:
    """The rejection with a code of `REJECTIONS`, in the words that stand there."""
    return Rejection(code, REJECTIONS[code])


def unreadable(outcome: DecodeOutcome | None) -> Rejection | None:
    """Why a picture could not be decoded, if it was tried and could not."""
    return outcome.rejection if isinstance(outcome, Unreadable) else None


def finding_of(engine: Engine, raw: list[float]) -> Scores | Rejection:
    """Scores of one image; numbers that are none are a failure, never a level."""
    try:
        return scores(engine.labels, raw, engine.operating_points)
    except ValueError:
        return rejection_of("not_finite")
