"""The values that pass between the steps of an image's way: frozen, and plain data.

Times: `*_s` are seconds on the monotonic clock; `*_at` are aware datetimes in UTC.
Paths below the inbox are `str` as `os.fsdecode` makes them, so that names which are
not valid UTF-8 survive unchanged (surrogate escapes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

Level = Literal["High", "Medium", "Low"]
LEVELS: tuple[Level, ...] = ("High", "Medium", "Low")
"""From the most to the least urgent; also the names of the folders."""

REJECTED_FOLDER = "rejected"
DUPLICATES_FOLDER = "duplicates"
"""Keys of the two folders of results beside those of the levels."""

LARGEST_FILE_BYTES = 268_435_456
"""No setting takes a larger file, so a larger one is rejected before a byte of it is read."""


@dataclass(frozen=True, slots=True)
class SeenFile:
    """One regular file that a scan of the inbox found.

    Attributes:
        path: path below the inbox.
        size: bytes.
        mtime_ns: time of last modification, nanoseconds since 1970.
        inode: with the size and the time the identity that must stay the same to settle; 0 where
            it is none, as on network file systems.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int


INBOX, HANDOVER = "inbox", "upload"
"""Names of the two sources; `waiting` shows them."""


class Origin(NamedTuple):
    """Where a file waits to be claimed; also its key in the table of retries.

    Attributes:
        source: the name of the source.
        key: what the file is known by there: its path below the inbox, or its name among the
            files that are handed over.
    """

    source: str
    key: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that has settled and may be claimed.

    Attributes:
        file: as it was last seen; its path is the one that records show.
        first_seen_s: when a scan first found it.
        settled_s: when its settle time was over.
        origin: where it waits.
        is_awaited: somebody waits for its result; it goes before the others.
        overdue: true when it is unchanged for so long that it is taken even if it does not look
            whole; the decoder then says what it lacks.
        given_up: why it is rejected unread; None for a file that is to be read.
        retry_of: index of its rejection, when `retry` has put it back.
    """

    file: SeenFile
    first_seen_s: float
    settled_s: float
    origin: Origin
    is_awaited: bool = False
    overdue: bool = False
    given_up: Rejection | None = None
    retry_of: int | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which network made a score; it goes into every record, page and summary.

    Attributes:
        name: name of the weight set.
        sha256: hash of the weights in hexadecimal.
        precision: "float32" or "bfloat16".
        simulated: true where the results mean nothing on patients.
    """

    name: str
    sha256: str
    precision: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one image for the trained labels of the network, in its order.

    Attributes:
        labels: names of the pathologies.
        raw: sigmoid of each logit, in 0..1.
        calibrated: raw scaled so that the operating point is 0.5, in 0..1.

    Raises:
        ValueError: when the lengths differ or a score is not a finite number in 0..1.
    """

    labels: tuple[str, ...]
    raw: tuple[float, ...]
    calibrated: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.labels or not len(self.labels) == len(self.raw) == len(self.calibrated):
            raise ValueError("labels and scores differ in number")
        for score in (*self.raw, *self.calibrated):
            if not (math.isfinite(score) and 0.0 <= score <= 1.0):
                raise ValueError(f"a score of {score} is not a number in 0..1")


@dataclass(frozen=True, slots=True)
class RiskRules:
    """How scores become a level: the `[risk]` table of the configuration.

    Attributes:
        policy: "top-condition" (the highest score decides) or "highest-risk" (the highest
            level among the conditions at or above their threshold).
        level_of: level of each label.
        thresholds: score in 0..1 from which a condition counts as present; others use 0.5.
        no_finding_level: level under "highest-risk" when no condition is present.
        low_margin: first and second score closer than this get the flag `low_margin`.
    """

    policy: Literal["top-condition", "highest-risk"]
    level_of: Mapping[str, Level]
    thresholds: Mapping[str, float]
    no_finding_level: Level
    low_margin: float


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the rules make of one image's scores.

    Attributes:
        level: the risk level, the folder that it is filed in.
        top_label: the condition with the highest score.
        top_score: that score, in 0..1.
        ranking: every label with its score, highest first.
        flags: `no_finding`, `low_margin`, `higher_risk_present`, as far as they hold.
    """

    level: Level
    top_label: str
    top_score: float
    ranking: tuple[tuple[str, float], ...]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Rejection:
    """Why an image is rejected: a code of `REJECTIONS` and what was found, in words."""

    code: str = field(metadata={"description": "why it was rejected, as a code"})
    detail: str = field(metadata={"description": "the same in a sentence"})

    @classmethod
    def of(cls, code: str) -> Self:
        """The rejection with a code and sentence of `REJECTIONS`."""
        return cls(code, REJECTIONS[code])


REJECTIONS: Mapping[str, str] = {
    "empty": "The file has no content.",
    "incomplete": "The picture is not whole: its end is missing.",
    "wrong_format": "The content is neither a JPEG nor a PNG.",
    "corrupt": "The picture is damaged and cannot be read to its end.",
    "trailing_data": "There is foreign data after the end of the picture.",
    "multiple_frames": "The file holds more than one picture.",
    "too_large": "The file or the picture is larger than the configured limits.",
    "too_small": "The picture is smaller than the configured limit.",
    "blank": "What is scored of the picture has no content: in its centre square, the grey (of a "
    "colour picture, the red) is the same everywhere.",
    "unsupported_mode": "The picture's colour mode, or its kind of JPEG, is not handled.",
    "decoder_limit": "Reading the picture went over its limit of memory or time.",
    "decoder_crash": "The picture made the decoder crash, twice, or had it killed, eight times.",
    "unreadable": "The file could not be read for a long time (give_up_after_minutes).",
    "interrupted": "The service ended again and again while it worked on this image.",
    "not_finite": "The network's scores for this picture are not numbers.",
    "missing": "The file vanished, or what is no file took its place, before it could be filed.",
    "duplicate": 'The same bytes were received before (duplicates = "set-aside").',
}
"""Every reason for rejecting an image, by its code."""
