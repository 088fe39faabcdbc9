"""The record of one image and its two forms: a JSONL line and a CSV row.

A record is a plain dict in the order of its keys, so that what the ledger keeps, the logs
hold and the web answers is one and the same.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

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

REJECTED = "Rejected"
"""What stands in `risk_level` of an image that was set aside."""

Record = dict[str, Any]

_SCORE_DIGITS = 6
_MS_DIGITS = 2


@dataclass(frozen=True, slots=True)
class Timings:
    """How long the steps took for one image, in milliseconds.

    Attributes:
        settle: from first seen to complete.
        queue: from complete to the start of decoding.
        decode: reading and decoding, in the child process.
        infer: its share of the batch's forward pass.
        file: claiming and hashing; the final move comes after the record is sealed.
    """

    settle: float
    queue: float
    decode: float
    infer: float
    file: float


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
    has_low_contrast: bool = False

    @property
    def name(self) -> str:
        """The file's own name."""
        return os.path.basename(self.path)

    @property
    def source(self) -> str:
        """First folder below the inbox; empty for a file that lay in the inbox itself."""
        first, slash, _ = self.path.partition("/")
        return first if slash else ""


@dataclass(frozen=True, slots=True)
class Filing:
    """Where and when the decision puts an image: its index, its path as shown, the time."""

    index: int
    saved_path: str | None
    decided_at: datetime


def classified_record(
    facts: Facts,
    filing: Filing,
    model: ModelInfo,
    timings: Timings,
    scores: Scores,
    assessment: Assessment,
    policy: str,
) -> Record:
    """The record of an image that was scored."""
    ranking = assessment.ranking
    result: Record = {
        "top_label": assessment.top_label,
        "top_probability": _score(assessment.top_score),
        "risk_level": assessment.level,
        "policy": policy,
        "flags": _flags(assessment.flags, facts),
        "top_predictions": [
            {"label": label, "prob": _score(score)} for label, score in ranking[:TOP_PREDICTIONS]
        ],
        "all_probs": _by_label(scores.labels, scores.calibrated),
        "raw_probs": _by_label(scores.labels, scores.raw),
    }
    return _record(facts, filing, model, timings, result)


def rejected_record(
    facts: Facts, filing: Filing, model: ModelInfo, timings: Timings, rejection: Rejection
) -> Record:
    """The record of an image that was set aside."""
    result: Record = {
        "risk_level": REJECTED,
        "flags": _flags((), facts),
        "rejected": {"code": rejection.code, "detail": rejection.detail},
    }
    return _record(facts, filing, model, timings, result)


def model_fields(model: ModelInfo) -> dict[str, str]:
    """What records, `status` and `predict` say of the network."""
    return {"name": model.name, "sha256": model.sha256, "precision": model.precision}


def to_jsonl(record: Record) -> bytes:
    """One line of JSON in ASCII, so that no reader can take a character for a line's end."""
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def from_jsonl(line: bytes) -> Record:
    """The record that a line holds."""
    record: Record = json.loads(line)
    return record


class CsvLayout:
    """The fixed columns of a CSV log: those of every record, then one for each label.

    Args:
        labels: the trained labels of the network, in its order.
        zone: local time zone of the times; None is the system's.
    """

    def __init__(self, labels: Sequence[str], zone: tzinfo | None) -> None:
        self._labels = tuple(labels)
        self._zone = zone

    @property
    def header(self) -> bytes:
        """The byte-order mark, by which Excel knows UTF-8, and the line of column names."""
        return b"\xef\xbb\xbf" + _csv_line([*CSV_COLUMNS, *self._labels])

    def row(self, record: Record) -> bytes:
        """One physical line, RFC 4180; text that a spreadsheet would run is defused."""
        cells = _cells(record, self._zone)
        scores: Mapping[str, float] = record.get("all_probs", {})
        return _csv_line(
            [
                *(cells[column] for column in CSV_COLUMNS),
                *(scores.get(label) for label in self._labels),
            ]
        )


CSV_COLUMNS: tuple[str, ...] = (
    "index",
    "classified_at",
    "filename",
    "source",
    "risk_level",
    "top_label",
    "top_probability",
    "flags",
    "duplicate_of",
    "reject_code",
    "reject_detail",
    "received_at",
    "saved_path",
    "inbox_path",
    "sha256",
    "bytes",
    "width",
    "height",
    "policy",
    "model",
    "model_sha256",
    "precision",
    "simulated",
    "batch_id",
    "batch_size",
    "settle_ms",
    "queue_ms",
    "decode_ms",
    "infer_ms",
    "file_ms",
    "notice",
)
"""The columns before those of the labels; new ones are only ever added at their end."""


def _record(
    facts: Facts, filing: Filing, model: ModelInfo, timings: Timings, result: Record
) -> Record:
    """The fields in the order of the design; `result` holds those that differ by outcome."""
    return {
        "schema": SCHEMA,
        "index": filing.index,
        **_names(facts),
        "received_at": utc_text(facts.received_at),
        "classified_at": utc_text(filing.decided_at),
        "sha256": facts.sha256,
        "bytes": facts.size,
        "width": facts.width,
        "height": facts.height,
        **result,
        "duplicate_of": facts.duplicate_of,
        **({} if facts.retry_of is None else {"retry_of": facts.retry_of}),
        "saved_path": filing.saved_path,
        "batch_id": facts.batch_id,
        "batch_size": facts.batch_size,
        "model": model_fields(model),
        "timings_ms": {
            step: round(getattr(timings, step), _MS_DIGITS) for step in Timings.__slots__
        },
        "simulated": model.simulated,
        "notice": NOTICE,
    }


def _names(facts: Facts) -> Record:
    """The names as they came; where they are not UTF-8, escaped, and exact in base64."""
    names: Record = {
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


def _flags(flags: Sequence[str], facts: Facts) -> list[str]:
    return [
        *flags,
        *([LOW_CONTRAST] if facts.has_low_contrast else []),
        *(["duplicate_of"] if facts.duplicate_of is not None else []),
        *(["retry_of"] if facts.retry_of is not None else []),
    ]


def _score(score: float) -> float:
    return round(score, _SCORE_DIGITS)


def _by_label(labels: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    return {label: _score(score) for label, score in zip(labels, scores, strict=True)}


def _cells(record: Record, zone: tzinfo | None) -> Record:
    model, rejected = record["model"], record.get("rejected", {})
    timings = {f"{step}_ms": ms for step, ms in record["timings_ms"].items()}
    return {
        **dict.fromkeys(CSV_COLUMNS),
        **{column: record[column] for column in CSV_COLUMNS if column in record},
        **timings,
        "classified_at": local_text(datetime.fromisoformat(record["classified_at"]), zone),
        "received_at": local_text(datetime.fromisoformat(record["received_at"]), zone),
        "flags": ";".join(record["flags"]),
        "reject_code": rejected.get("code"),
        "reject_detail": rejected.get("detail"),
        "model": model["name"],
        "model_sha256": model["sha256"],
        "precision": model["precision"],
        "simulated": "true" if record["simulated"] else "false",
    }


def _csv_line(cells: Sequence[object]) -> bytes:
    """RFC 4180; only texts are quoted, so that a reader can tell no number from an empty text."""
    return (",".join(map(_cell, cells)) + "\r\n").encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + _defused(value).replace('"', '""') + '"'
    return repr(value)


_FORMULA = "[\\s\\x00\"']*[=+\\-@\uff1d\uff0b\uff0d\uff20]"  # fullwidth forms run too
_BEGINS_AS_FORMULA = re.compile(_FORMULA)
_ESCAPED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"  # what ends a line or moves a terminal's cursor
    rf"|[;,|](?={_FORMULA})"  # where it separates, a cell that is a formula would begin behind it
    r"|\\(?=x[0-9a-f]{2}|u[0-9a-f]{4})"  # so that what is escaped can be told from what looks so
)


def _defused(text: str) -> str:
    """Text that runs as a formula nowhere and stays on one line (CWE-1236).

    What separates the cells is the reader's to choose: Excel takes `;` where a comma stands in
    decimals. docs/csv.md says how the text as it came is had again.
    """
    safe = _ESCAPED.sub(_escape, text)
    return f"'{safe}" if _BEGINS_AS_FORMULA.match(text) else safe


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
