"""The record of one image, which is kept for ever.

`records.py` makes it and turns it into lines of the logs. The API's documentation and the table of
`docs/csv.md` are made from its fields and their descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from xray_watcher.core.values import Rejection

RiskLevel = Literal["High", "Medium", "Low", "Rejected"]


def _says(description: str) -> Mapping[str, str]:
    return {"description": description}


@dataclass(frozen=True)
class Timings:
    """How long the steps took for one image, in milliseconds."""

    settle: float = field(metadata=_says("from first seen to complete"))
    queue: float = field(metadata=_says("from complete to the start of decoding"))
    decode: float = field(metadata=_says("reading and decoding"))
    infer: float = field(metadata=_says("its share of the batch's forward pass"))
    file: float = field(metadata=_says("claiming and hashing"))


@dataclass(frozen=True)
class ModelFields:
    """Which network scored an image."""

    name: str = field(metadata=_says("name of the set of weights"))
    sha256: str = field(metadata=_says("hash of the checkpoint that the weights are from"))
    precision: str = field(metadata=_says("`float32`, or what the configuration says"))


@dataclass(frozen=True)
class Prediction:
    """One condition and its score."""

    label: str
    prob: float = field(metadata=_says("calibrated score in 0..1; 0.5 is the operating point"))


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image, in the order of the JSONL line; optional fields that are None are not in it."""

    # No slots: `records.from_jsonl` fills it at once, for whoever reads very many of them.
    schema: int = field(metadata=_says("version of the record"))
    index: int = field(metadata=_says("the number in the file's name"))
    filename: str = field(metadata=_says("the file's own name, as it came"))
    source: str = field(metadata=_says("first folder below the inbox"))
    inbox_path: str = field(metadata=_says("where it came from, below the inbox"))
    inbox_path_b64: str | None = field(
        default=None, metadata=_says("the same in base64, where it is not UTF-8")
    )
    received_at: str = field(metadata=_says("when it was first seen"))
    classified_at: str = field(metadata=_says("when it was decided"))
    sha256: str | None = field(metadata=_says("of its bytes, in hexadecimal"))
    bytes: int = field(metadata=_says("its size"))
    width: int | None = field(metadata=_says("in pixels, as displayed"))
    height: int | None = field(metadata=_says("in pixels, as displayed"))
    top_label: str | None = field(
        default=None, metadata=_says("the condition with the highest score")
    )
    top_probability: float | None = field(default=None, metadata=_says("that score, 0 to 1"))
    risk_level: RiskLevel = field(metadata=_says("`High`, `Medium`, `Low`, or `Rejected`"))
    policy: str | None = field(default=None, metadata=_says("the rule that gave the level"))
    flags: tuple[str, ...] = field(metadata=_says("none or several"))
    top_predictions: tuple[Prediction, ...] | None = field(
        default=None, metadata=_says("the three highest scores")
    )
    all_probs: Mapping[str, float] | None = field(
        default=None, metadata=_says("calibrated score of each condition, 0 to 1")
    )
    raw_probs: Mapping[str, float] | None = field(
        default=None, metadata=_says("raw score of each condition, 0 to 1")
    )
    rejected: Rejection | None = field(default=None, metadata=_says("why it was rejected"))
    duplicate_of: int | None = field(
        metadata=_says("index of the first classified image with the same bytes")
    )
    retry_of: int | None = field(
        default=None, metadata=_says("index of its earlier rejection, when it was put back")
    )
    saved_path: str | None = field(metadata=_says("where it lies, below the root"))
    request_id: str | None = field(
        default=None, metadata=_says("the upload's request, by the id in the API's answer")
    )
    batch_id: str = field(metadata=_says("images that were scored together share it"))
    batch_size: int = field(metadata=_says("how many those were"))
    model: ModelFields = field(metadata=_says("the network that scored it"))
    timings_ms: Timings = field(metadata=_says("how long the steps took, in milliseconds"))
    simulated: bool = field(metadata=_says("`true` when the network means nothing on patients"))
    notice: str = field(metadata=_says("what the results are and are not"))
