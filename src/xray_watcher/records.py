"""Makes the record of one image and its two forms: a JSONL line and a CSV row."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import datetime, tzinfo
from operator import attrgetter
from typing import Any, Final, TypeVar

from pydantic_core import from_json

from xray_watcher.core.batching import source_folder
from xray_watcher.core.image_record import ImageRecord, ModelFields, Prediction, Timings
from xray_watcher.core.naming import safe_name
from xray_watcher.core.times import local_text, utc_text
from xray_watcher.core.values import Assessment, ModelInfo, Rejection, Scores

SCHEMA = 1
"""Version of the record; fields are only ever added within a version."""

NOTICE = "Research and triage aid, not a diagnosis."

SIMULATIONS: Mapping[str, str] = {
    "phantom": "SIMULATION (phantom network: trained on drawings, meaningless on patients).",
    "untrained": "SIMULATION (untrained network: random weights, meaningless on patients).",
}
"""What is said, loudly, wherever results of such a network are shown; by name of the weights."""

TOP_PREDICTIONS = 3

LOW_CONTRAST = "low_contrast"
"""The flag of a picture whose values lie so close together that the scores mean little."""

REJECTED: Final = "Rejected"
"""What stands in `risk_level` of a rejected image."""

_SCORE_DIGITS = 6
_MS_DIGITS = 2
_STEPS = tuple(each.name for each in fields(Timings))

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an image before anything is decided about it.

    Attributes:
        path: below the inbox, as `os.fsdecode` makes it.
        size: bytes.
        sha256: in hexadecimal; None when the bytes could not be read any more.
        width: pixels, as displayed; None when it was not decoded.
        height: pixels, as displayed; None when it was not decoded.
        received_at: when it was first seen, UTC.
        batch_id: the batch that it went through.
        batch_size: images in that batch.
        duplicate_of: index of the first classified image with the same bytes.
        retry_of: index of its earlier rejection, when it was put back.
        request_id: of the upload's request; None for a file of the inbox.
        has_low_contrast: the network sees next to nothing of it.
    """

    path: str
    size: int
    sha256: str | None
    width: int | None
    height: int | None
    received_at: datetime
    batch_id: str
    batch_size: int
    duplicate_of: int | None = None
    retry_of: int | None = None
    request_id: str | None = None
    has_low_contrast: bool = False

    @property
    def name(self) -> str:
        """The file's own name."""
        return os.path.basename(self.path)

    @property
    def source(self) -> str:
        """First folder below the inbox; empty for a file that lay in the inbox itself."""
        return source_folder(self.path)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and when the decision puts an image: its index, its path as shown, the time."""

    index: int
    saved_path: str | None
    decided_at: datetime


def classified_record(
    facts: Facts,
    placement: Placement,
    model: ModelInfo,
    timings: Timings,
    scores: Scores,
    assessment: Assessment,
    policy: str,
) -> ImageRecord:
    """The record of an image that was scored."""
    top = [(label, round(score, _SCORE_DIGITS)) for label, score in assessment.ranking]
    return ImageRecord(
        **_common(facts, placement, model, timings),
        top_label=assessment.top_label,
        top_probability=round(assessment.top_score, _SCORE_DIGITS),
        risk_level=assessment.level,
        policy=policy,
        flags=_flags(assessment.flags, facts),
        top_predictions=tuple(Prediction(*pair) for pair in top[:TOP_PREDICTIONS]),
        all_probs=_by_label(scores.labels, scores.calibrated),
        raw_probs=_by_label(scores.labels, scores.raw),
    )


def rejected_record(
    facts: Facts, placement: Placement, model: ModelInfo, timings: Timings, rejection: Rejection
) -> ImageRecord:
    """The record of a rejected image."""
    return ImageRecord(
        **_common(facts, placement, model, timings),
        risk_level=REJECTED,
        flags=_flags((), facts),
        rejected=rejection,
    )


# -- JSONL --------------------------------------------------------------------------------

_FIELDS = tuple(each.name for each in fields(ImageRecord))
_ALWAYS = frozenset(each.name for each in fields(ImageRecord) if each.default is MISSING)
_read_values: Callable[[ImageRecord], tuple[Any, ...]] = attrgetter(*_FIELDS)
_encode = json.JSONEncoder(
    check_circular=False, allow_nan=False, separators=(",", ":"), default=vars
).encode


def to_jsonl(record: ImageRecord) -> bytes:
    """One line of JSON in ASCII, so that no reader can take a character for a line's end.

    Raises:
        ValueError: a number in it is none.
    """
    found = zip(_FIELDS, _read_values(record), strict=True)
    line = {name: value for name, value in found if value is not None or name in _ALWAYS}
    return _encode(line).encode("ascii") + b"\n"


def from_jsonl(line: bytes) -> ImageRecord:
    """The record that a line holds, also one of an older or a newer version of this program.

    Raises:
        ValueError: it holds no record.
    """
    found = from_json(line)
    try:
        if not found.keys() >= _ALWAYS:
            raise ValueError(f"a record lacks {', '.join(sorted(_ALWAYS - found.keys()))}")
        found["flags"] = tuple(found["flags"])
        for name, kind in _PARTS.items():
            if name in found:
                found[name] = _fill(kind, found[name])
        if top := found.get("top_predictions"):
            found["top_predictions"] = tuple(_fill(Prediction, each) for each in top)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("a line holds no record") from error
    return _fill(ImageRecord, found)


_PARTS = {"rejected": Rejection, "model": ModelFields, "timings_ms": Timings}


def _fill(kind: type[_T], found: Mapping[str, Any]) -> _T:
    """A frozen value with these fields; its own constructor takes eight times as long."""
    value = object.__new__(kind)
    value.__dict__.update(found)
    return value


# -- CSV ----------------------------------------------------------------------------------


class CsvLayout:
    """The columns of a CSV log: the fixed ones, then one for each label.

    Args:
        labels: the trained labels of the network, in its order.
        zone: local time zone of the times; None is the system's.
        columns: the fixed ones; a log of an older version has fewer.
    """

    def __init__(
        self, labels: Sequence[str], zone: tzinfo | None, columns: Sequence[str] | None = None
    ) -> None:
        self._labels = tuple(labels)
        self._zone = zone
        self._columns = CSV_COLUMNS if columns is None else tuple(columns)
        self._values = [_build_reader(column) for column in self._columns]

    @property
    def header(self) -> bytes:
        """The byte-order mark, by which Excel knows UTF-8, and the line of column names."""
        return b"\xef\xbb\xbf" + _csv_line([*self._columns, *self._labels])

    def row(self, record: ImageRecord) -> bytes:
        """One physical line, RFC 4180; text that a spreadsheet would run is defused."""
        scores = record.all_probs or {}
        cells = [value(record, self._zone) for value in self._values]
        return _csv_line([*cells, *(scores.get(label) for label in self._labels)])


CSV_COLUMNS: tuple[str, ...] = (
    *("index", "classified_at", "filename", "source"),
    *("risk_level", "top_label", "top_probability", "flags", "duplicate_of"),
    *("reject_code", "reject_detail", "received_at", "saved_path", "inbox_path"),
    *("sha256", "bytes", "width", "height", "policy"),
    *("model", "model_sha256", "precision", "simulated", "batch_id", "batch_size"),
    *("settle_ms", "queue_ms", "decode_ms", "infer_ms", "file_ms", "notice"),
    "request_id",
)
"""The columns before those of the labels; new ones are only ever added at their end."""

FIRST_CSV_COLUMNS = 31
"""So many the first version wrote."""

CSV_PARTS: Mapping[str, str] = {
    "reject_code": "rejected.code",
    "reject_detail": "rejected.detail",
    "model": "model.name",
    "model_sha256": "model.sha256",
    "precision": "model.precision",
    **{f"{step}_ms": f"timings_ms.{step}" for step in _STEPS},
}
"""The columns that hold a part of a field; all others have the name of theirs."""


def _build_reader(column: str) -> Callable[[ImageRecord, tzinfo | None], object]:
    """Build the function that reads a cell's value from a record, in a time zone."""
    get = attrgetter(CSV_PARTS.get(column, column))
    if column in ("reject_code", "reject_detail"):
        return lambda record, _zone: record.rejected and get(record)
    if column in ("classified_at", "received_at"):
        return lambda record, zone: local_text(datetime.fromisoformat(get(record)), zone)
    return lambda record, _zone: get(record)


# -- making -------------------------------------------------------------------------------


def _common(
    facts: Facts, placement: Placement, model: ModelInfo, timings: Timings
) -> dict[str, Any]:
    """The fields that all records have, whatever the outcome."""
    rounded = {step: round(getattr(timings, step), _MS_DIGITS) for step in _STEPS}
    return {
        "schema": SCHEMA,
        "index": placement.index,
        **_names(facts),
        "received_at": utc_text(facts.received_at),
        "classified_at": utc_text(placement.decided_at),
        "sha256": facts.sha256,
        "bytes": facts.size,
        "width": facts.width,
        "height": facts.height,
        "duplicate_of": facts.duplicate_of,
        "retry_of": facts.retry_of,
        "saved_path": placement.saved_path,
        "request_id": facts.request_id,
        "batch_id": facts.batch_id,
        "batch_size": facts.batch_size,
        "model": ModelFields(model.name, model.sha256, model.precision),
        "timings_ms": Timings(**rounded),
        "simulated": model.simulated,
        "notice": NOTICE,
    }


def _names(facts: Facts) -> dict[str, str]:
    """The names as they came; where they are not UTF-8, escaped, and exact in base64."""
    names = {
        "filename": _text(facts.name),
        "source": _text(facts.source),
        "inbox_path": _text(facts.path),
    }
    if names["inbox_path"] != facts.path:
        names["inbox_path_b64"] = base64.b64encode(os.fsencode(facts.path)).decode("ascii")
    return names


def _text(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "/".join(safe_name(part) for part in name.split("/"))
    return name


def _flags(flags: Sequence[str], facts: Facts) -> tuple[str, ...]:
    more = {
        LOW_CONTRAST: facts.has_low_contrast,
        "duplicate_of": facts.duplicate_of is not None,
        "retry_of": facts.retry_of is not None,
    }
    return (*flags, *(flag for flag, is_set in more.items() if is_set))


def _by_label(labels: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    rounded = (round(score, _SCORE_DIGITS) for score in scores)
    return dict(zip(labels, rounded, strict=True))


def _csv_line(cells: Sequence[object]) -> bytes:
    """RFC 4180; only texts are quoted, so that an empty text differs from no value."""
    return (",".join(map(_cell, cells)) + "\r\n").encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, tuple):
        value = ";".join(value)
    if isinstance(value, str):
        return '"' + _defuse(value).replace('"', '""') + '"'
    return repr(value)


_FORMULA = "[\\s\\x00\"']*[=+\\-@\uff1d\uff0b\uff0d\uff20]"  # fullwidth forms run too
_BEGINS_AS_FORMULA = re.compile(_FORMULA)
_ESCAPED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"  # what ends a line or moves a terminal's cursor
    rf"|[;,|](?={_FORMULA})"  # where it separates, a cell that is a formula would begin behind it
    r"|\\(?=x[0-9a-f]{2}|u[0-9a-f]{4})"  # so that an escape differs from what looks like one
)


def _defuse(text: str) -> str:
    """Text that runs as a formula nowhere and stays on one line (CWE-1236).

    What separates the cells is the reader's to choose: Excel takes `;` where a comma stands in
    decimals. docs/csv.md says how the text as it came is had again.
    """
    safe = _ESCAPED.sub(_escape, text)
    return f"'{safe}" if _BEGINS_AS_FORMULA.match(text) else safe


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
