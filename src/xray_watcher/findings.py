"""What is found about one image without the network: why it is set aside."""

from __future__ import annotations

from xray_watcher.core.retries import REASONS, Retry
from xray_watcher.core.values import LARGEST_FILE_BYTES, REJECTIONS, Rejection
from xray_watcher.imaging.decode_pool import DecodeOutcome, Unreadable


def rejection_of(code: str) -> Rejection:
    """The rejection with a code of `REJECTIONS`, in the words that stand there."""
    return Rejection(code, REJECTIONS[code])


def given_up(retry: Retry, now_s: float) -> Rejection:
    """The rejection of a file that could not be read for too long."""
    minutes = (now_s - retry.since_s) / 60
    reason = retry.reason
    why = "" if reason is None else f": {REASONS[reason.code]} ({reason.detail})"
    return Rejection(
        "unreadable",
        f"For {minutes:.0f} minutes the file was tried {retry.tries} times{why}. Send it again, "
        "or put it back with `xray-watcher retry` when the cause is gone.",
    )


def too_large(size: int) -> Rejection:
    """The rejection of a file that no setting takes; nobody reads it."""
    return Rejection(
        "too_large",
        f"The file has {size} bytes; no more than {LARGEST_FILE_BYTES} can be taken.",
    )


def unreadable(outcome: DecodeOutcome | None) -> Rejection | None:
    """Why a picture could not be decoded, if it was tried and could not."""
    return outcome.rejection if isinstance(outcome, Unreadable) else None
