"""What the running daemon reports of itself: written every few seconds, read by all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Self

from xray_watcher.core.times import utc_text
from xray_watcher.core.values import ModelInfo

_KEYS = {"is_ready": "ready", "retries": "waiting", "problems": "troubles"}
"""The fields that have another name in JSON."""


@dataclass(frozen=True, slots=True)
class RetryFigures:
    """How many images wait for another try, by reason; seconds since the first of them failed.

    `barred` counts files and folders of the inbox that may not be read.
    """

    images: int = 0
    oldest_s: float | None = None
    codes: Mapping[str, int] = field(default_factory=dict)
    barred: int = 0


@dataclass(frozen=True, slots=True)
class StatusReport:
    """How the daemon is at a moment. An empty one stands for a daemon that has reported nothing.

    Attributes:
        version: of the program.
        pid: of the process.
        at: when it was made, aware; None in an empty report.
        sandbox_lacks: parts of the decoders' confinement that this system does not offer.
        model: the network; None while it is being loaded.
        is_ready: the network is loaded, and recovery is done or waits for a component.
        waiting_in_inbox: files in the inbox that are not claimed.
        unfinished: those of them that do not look whole.
        uploads: uploads that are not claimed.
        oldest_waiting_s: for how long the oldest file of the inbox has waited.
        ignored: entries of the inbox that are left alone.
        batches_in_hand: batches that are claimed and not finished.
        filed_since_start: images, the rejected ones included.
        retries: the images that wait for another try.
        problems: why the service is degraded, by component.
        last_error: the last reason, even if it is over.
    """

    version: str | None = None
    pid: int = 0
    at: datetime | None = None
    sandbox_lacks: list[str] = field(default_factory=list)
    model: ModelInfo | None = None
    is_ready: bool = False
    waiting_in_inbox: int | None = None
    unfinished: int | None = None
    uploads: int | None = None
    oldest_waiting_s: float | None = None
    ignored: int | None = None
    batches_in_hand: int | None = None
    filed_since_start: int | None = None
    retries: RetryFigures | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    last_error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The report, ready for JSON."""
        facts = {_KEYS.get(name, name): value for name, value in asdict(self).items()}
        return facts | {"at": None if self.at is None else utc_text(self.at)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """The report in a file, perhaps of another version; what the file lacks is empty."""
        known = _fields_in(cls, facts)
        if known.get("at") is not None:
            known["at"] = datetime.fromisoformat(known["at"])
        for name, kind in (("model", ModelInfo), ("retries", RetryFigures)):
            if known.get(name) is not None:
                known[name] = kind(**_fields_in(kind, known[name]))
        return cls(**known)


def _fields_in(kind: type, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a class's fields that the facts have."""
    keys = {each.name: _KEYS.get(each.name, each.name) for each in fields(kind)}
    return {name: facts[key] for name, key in keys.items() if key in facts}
