"""What the list of results is filtered and sorted by, made from a record.

The ledger has numbers for conditions, flags and levels: places in `OUTPUTS`, `FLAGS` and `_LEVELS`.
A new one has its place at the end.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from xray_watcher.core.catalogue import OUTPUTS
from xray_watcher.core.image_record import ImageRecord
from xray_watcher.core.risk import DEFAULT_THRESHOLD

FLAGS: tuple[str, ...] = (
    "no_finding",
    "low_margin",
    "higher_risk_present",
    "low_contrast",
    "duplicate_of",
    "retry_of",
)
"""Every flag of a record."""

_LEVELS = ("Rejected", "Low", "Medium", "High")
_SCORES = 10_000_000  # more than the highest score in millionths
_NONE = -1


class ResultKeys(NamedTuple):
    """The keys of one record, in the order of the ledger's columns.

    Attributes:
        rank: level, then whether a condition reached its operating point, then the score.
        top: place of the condition with the highest score; -1 without one.
        present: a bit for each condition that reached its operating point.
        flags: a bit for each flag.
        source: first folder below the inbox.
        name: the file's own name, folded.
        idx: index of the image.
    """

    rank: int
    top: int
    present: int
    flags: int
    source: str
    name: str
    idx: int


def result_keys(record: ImageRecord, thresholds: Mapping[str, float]) -> ResultKeys:
    """Make the keys of a record.

    Args:
        record: of a classified or a rejected image.
        thresholds: score from which a condition counts as present; others use 0.5.
    """
    has_finding = record.risk_level != _LEVELS[0] and FLAGS[0] not in record.flags
    millionths = round((record.top_probability or 0.0) * 1_000_000)
    present = (
        condition_bit(label)
        for label, score in (record.all_probs or {}).items()
        if score >= thresholds.get(label, DEFAULT_THRESHOLD)
    )
    return ResultKeys(
        rank=(_LEVELS.index(record.risk_level) * 2 + has_finding) * _SCORES + millionths,
        top=condition_place(record.top_label),
        present=sum(present),
        flags=sum(map(flag_bit, record.flags)),
        source=record.source,
        name=folded(record.filename),
        idx=record.index,
    )


def condition_place(label: str | None) -> int:
    """The number of a condition; -1 for none and for an unknown one."""
    return OUTPUTS.index(label) if label in OUTPUTS else _NONE


def condition_bit(label: str) -> int:
    """The bit of a condition; 0 for an unknown one."""
    return 1 << OUTPUTS.index(label) if label in OUTPUTS else 0


def flag_bit(flag: str) -> int:
    """The bit of a flag; 0 for an unknown one."""
    return 1 << FLAGS.index(flag) if flag in FLAGS else 0


def ranks_of(level: str) -> tuple[int, int]:
    """The lowest and the highest rank of a level."""
    lowest = _LEVELS.index(level) * 2 * _SCORES
    return lowest, lowest + 2 * _SCORES - 1


def folded(name: str) -> str:
    """A name without regard to case and to how its accents are encoded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
