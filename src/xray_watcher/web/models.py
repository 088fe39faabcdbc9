"""What the API answers, typed: the answers are made from these, and so is `/openapi.json`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from xray_watcher.core.image_record import ImageRecord, ModelFields, Prediction, RiskLevel
from xray_watcher.records import REJECTED

_BATCH = "The same as `request_id`, under its older name."


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Error(_Model):
    """Why something was refused or not scored."""

    code: str = Field(description="For programs; one word that does not change.")
    message: str = Field(description="For people; one or two sentences.")


class ErrorAnswer(_Model):
    """The answer to a request that was refused as a whole."""

    error: Error
    request_id: str | None = Field(
        None, description="Of the images that were taken before; they are filed all the same."
    )
    batch: str | None = Field(None, description=_BATCH)
    accepted: int = Field(0, description="Number of those images.")


_RECORD_FIELDS = {field.name for field in fields(ImageRecord)}


class Result(_Model):
    """What became of one file of an upload."""

    filename: str
    index: int | None = Field(description="Of the filed image; null if it was not taken.")
    top_label: str | None
    top_probability: float | None
    risk_level: RiskLevel
    top_predictions: list[Prediction]
    all_probs: dict[str, float]
    saved_path: str | None
    flags: list[str]
    sha256: str | None
    simulated: bool = Field(description="True where the scores mean nothing on patients.")
    model: ModelFields | None
    duplicate_of: int | None = Field(
        None, description="Index of the first image with the same bytes."
    )
    request_id: str | None = Field(
        None, description="Of the upload; its record and its CSV row have it too."
    )
    error: Error | None = Field(None, description="Why it could not be scored.")

    @classmethod
    def of_record(cls, record: ImageRecord) -> Self:
        """The result that a record holds."""
        rejected = record.rejected
        same = {name: getattr(record, name) for name in cls.model_fields.keys() & _RECORD_FIELDS}
        return cls(
            **same
            | {
                "top_predictions": record.top_predictions or [],
                "all_probs": record.all_probs or {},
                "error": rejected and Error(code=rejected.code, message=rejected.detail),
            }
        )

    @classmethod
    def of_refusal(cls, filename: str, error: Error) -> Self:
        """The result of a file that was not taken."""
        unknown: dict[str, Any] = dict.fromkeys(
            ("index", "top_label", "top_probability", "saved_path", "sha256", "model")
        )
        empty = {"top_predictions": [], "all_probs": {}, "flags": [], "simulated": False}
        return cls(filename=filename, risk_level=REJECTED, error=error, **unknown, **empty)

    def to_json(self) -> bytes:
        """As the answer has it: `error` only where there is one."""
        left_out = None if self.error else {"error"}
        return self.model_dump_json(exclude=left_out).encode()


class LineResult(Result):
    """One line of a streamed answer."""

    position: int = Field(description="Place of the file in the request, from 0.")


class Counts(_Model):
    """How many files of an upload are of each level."""

    High: int = 0
    Medium: int = 0
    Low: int = 0
    Rejected: int = 0


class LastLine(_Model):
    """The last line of a streamed answer."""

    summary: Counts
    output_directory: str
    request_id: str
    batch: str = Field(description=_BATCH)


class BatchAnswer(LastLine):
    """The answer to an upload: every file, in the order of the request."""

    results: list[Result]


class Accepted(_Model):
    """The answer to an upload that is not waited for."""

    request_id: str
    batch: str = Field(description=_BATCH)
    files: int = Field(description="That the request held.")
    accepted: int = Field(description="That will be filed.")
    refused: list[Result] = Field(description="Those that were not taken, with the reason.")
    url: str = Field(description="Where to ask how far it is.")


class BatchState(BatchAnswer):
    """How far an upload is; `summary` and `results` are of the files that are done."""

    state: Literal["receiving", "working", "done"]
    files: int = Field(description="That have come in by now.")
    done: int = Field(description="Files whose result is known.")


class RecordPage(_Model):
    """Some records, newest first."""

    results: list[ImageRecord]
    next: int | None = Field(description="Ask for the next page with cursor=NEXT; null: no more.")


class Health(_Model):
    """Whether the service works."""

    healthy: bool
    alive: bool = Field(description="Whether the daemon runs.")
    reasons: list[str] = Field(description="Codes of what is degraded.")
    problems: dict[str, str] | None = Field(
        None, alias="troubles", description="The same in words, for those who may see it."
    )
