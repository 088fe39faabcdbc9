"""What the templates show of a record: words, shares and classes, no decisions about images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo

from xray_watcher.core.image_record import ImageRecord
from xray_watcher.core.naming import safe_name
from xray_watcher.core.risk import DEFAULT_THRESHOLD
from xray_watcher.core.values import LEVELS, REJECTIONS, Rejection, RiskRules
from xray_watcher.records import REJECTED, SIMULATIONS

FLAG_WORDS: Mapping[str, str] = {
    "no_finding": "No condition reached its operating point.",
    "low_margin": "The two highest scores are close together.",
    "higher_risk_present": "A condition of a higher level reached its operating point too.",
    "low_contrast": "Its values lie close together, as of 12 bits in 16: the scores mean little.",
    "duplicate_of": "The same bytes were scored before.",
    "retry_of": "It was rejected before and put back.",
}
"""What each flag of a record means."""

FLAG_LABELS: Mapping[str, str] = {
    "no_finding": "No finding",
    "low_margin": "Close call",
    "higher_risk_present": "Also a higher level",
    "low_contrast": "Low contrast",
    "duplicate_of": "Same file as",
    "retry_of": "Put back from",
}
"""Each flag in a word or two; behind the last two stands the index of the other image."""

_SAID_IN_VERDICT = frozenset({"no_finding", "higher_risk_present"})


@dataclass(frozen=True, slots=True)
class Score:
    """One condition of one image.

    Attributes:
        kind: class of its level, such as "high"; empty when no level names it any more.
        share: the scaled score, in 0..1.
        raw: the raw sigmoid, in 0..1; None where it was not recorded.
        mark: its operating point on the same scale, in 0..1.
    """

    label: str
    kind: str
    share: float
    raw: float | None
    mark: float

    @property
    def is_present(self) -> bool:
        """Whether the score is at or above its operating point."""
        return self.share >= self.mark


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its name, what it means, and the index of the other image that it is about."""

    name: str
    label: str
    words: str
    other: int | None = None


@dataclass(frozen=True, slots=True)
class ImageView:
    """One filed image as the pages show it.

    Attributes:
        filename: as it came, without characters that could mislead the eye.
        source: first folder below the inbox, or empty.
        top_label: condition with the highest score; empty for a rejected image.
        top_share: that score, in 0..1.
        received_at: when it was first seen, in local time.
        filed_at: when it was decided about, in local time.
        simulation: what must be said of its network, or empty.
    """

    index: int
    filename: str
    source: str
    level: str
    top_label: str
    top_share: float
    scores: tuple[Score, ...]
    flags: tuple[Flag, ...]
    saved_path: str
    received_at: datetime
    filed_at: datetime
    has_picture: bool
    reject_code: str
    reject_words: str
    reject_detail: str
    simulation: str

    @property
    def kind(self) -> str:
        """The class of its level."""
        return self.level.lower()

    @property
    def is_rejected(self) -> bool:
        """Whether it was rejected."""
        return self.level == REJECTED

    @property
    def is_no_finding(self) -> bool:
        """Whether a rule gave the level, for no condition reached its operating point."""
        return any(flag.name == "no_finding" for flag in self.flags)

    @property
    def top_mark(self) -> float:
        """The operating point of the top condition, in 0..1."""
        marks = (score.mark for score in self.scores if score.label == self.top_label)
        return next(marks, DEFAULT_THRESHOLD)

    @property
    def higher(self) -> tuple[Score, ...]:
        """Conditions of a higher level that reached their operating point."""
        if self.level not in LEVELS:
            return ()
        kinds = [level.lower() for level in LEVELS[: LEVELS.index(self.level)]]
        return tuple(score for score in self.scores if score.is_present and score.kind in kinds)

    @property
    def chips(self) -> tuple[Flag, ...]:
        """The flags that the line of the verdict does not say already."""
        return tuple(flag for flag in self.flags if flag.name not in _SAID_IN_VERDICT)

    @property
    def sentence(self) -> str:
        """The result in a few words, for a screen reader."""
        if self.is_rejected:
            return f"{self.level}: {self.filename}, {self.reject_words}"
        if self.is_no_finding:
            return (
                f"{self.level} by rule: {self.filename}, no condition reached its operating point"
            )
        return f"{self.level}: {self.filename}, {self.top_label} {self.top_share:.0%}"


def image_view(record: ImageRecord, rules: RiskRules, zone: tzinfo | None) -> ImageView:
    """Make the view of a record.

    Args:
        rules: levels and operating points as they are set now.
        zone: local time zone; None is the system's.
    """
    rejected = record.rejected or Rejection("", "")
    scores = _scores(record, rules)
    return ImageView(
        index=record.index,
        filename=safe_name(record.filename),
        source=safe_name(record.source),
        level=record.risk_level,
        top_label=record.top_label or "",
        top_share=record.top_probability or 0.0,
        scores=scores,
        flags=tuple(_flag(name, record) for name in record.flags),
        saved_path=record.saved_path or "",
        received_at=datetime.fromisoformat(record.received_at).astimezone(zone),
        filed_at=datetime.fromisoformat(record.classified_at).astimezone(zone),
        has_picture=record.risk_level in LEVELS and record.saved_path is not None,
        reject_code=rejected.code,
        reject_words=REJECTIONS.get(rejected.code, ""),
        reject_detail=rejected.detail,
        simulation=SIMULATIONS.get(record.model.name, "") if record.simulated else "",
    )


def _scores(record: ImageRecord, rules: RiskRules) -> tuple[Score, ...]:
    """Highest first; equal ones in the order that the record's own ranking gives them."""
    ranked = [top.label for top in record.top_predictions or ()]
    raw = record.raw_probs or {}
    found = (
        Score(
            label,
            rules.level_of[label].lower() if label in rules.level_of else "",
            share,
            raw.get(label),
            rules.thresholds.get(label, DEFAULT_THRESHOLD),
        )
        for label, share in (record.all_probs or {}).items()
    )
    places = {label: place for place, label in enumerate(ranked)}
    return tuple(sorted(found, key=lambda s: (-s.share, places.get(s.label, len(places)))))


def _flag(name: str, record: ImageRecord) -> Flag:
    label, words = FLAG_LABELS.get(name, name), FLAG_WORDS.get(name, name)
    return Flag(name, label, words, getattr(record, name, None))
