"""What is found about one image without the network: why it is set aside."""

from __future__ import annotations

from xray_watcher.core.values import REJECTIONS, Rejection
from xray_watcher.intake.decoding import DecodeOutcome, Unreadable


def rejection_of(code: str) -> Rejection:
    """The rejection with a code of `REJECTIONS`, in the words that stand there."""
    return Rejection(code, REJECTIONS[code])


def unreadable(outcome: DecodeOutcome | None) -> Rejection | None:
    """Why a picture could not be decoded, if it was tried and could not."""
    return outcome.rejection if isinstance(outcome, Unreadable) else None
