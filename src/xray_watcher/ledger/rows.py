"""What the queries of the ledger return."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from xray_watcher.core.tally import Tally

Outcome = Literal["classified", "rejected"]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One row of the table `image`; its columns are explained in the schema."""

    id: int
    state: str
    path: bytes
    size: int
    received_us: int
    settled_us: int
    day: str
    attempts: int
    sha256: bytes | None
    idx: int | None
    outcome: Outcome | None
    level: str | None
    top_label: str | None
    reject_code: str | None
    folder: str | None
    filed_name: str | None
    filed_us: int | None
    upload: str | None
    removal: Literal["begun", "done"] | None
    removed_us: int | None
    retry_of: int | None

    @property
    def inbox_path(self) -> str:
        """The path below the inbox as `os.fsdecode` makes it."""
        return os.fsdecode(self.path)


@dataclass(frozen=True, slots=True)
class LogState:
    """The cursor of one pair of log files: how many bytes are known to be on disk."""

    name: str
    csv_header: bytes
    jsonl_bytes: int
    csv_bytes: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """The exact bytes of one record in both logs."""

    idx: int
    log: str
    jsonl: bytes
    csv: bytes


@dataclass(frozen=True, slots=True)
class DayImage:
    """What the summary of a day needs of one image; times in microseconds since 1970, UTC."""

    idx: int | None
    path: bytes
    state: str
    outcome: Outcome | None
    level: str | None
    top_label: str | None
    reject_code: str | None
    received_us: int
    filed_us: int | None
    jsonl: bytes | None


@dataclass(frozen=True, slots=True)
class Totals:
    """What the ledger has counted, all of it at one moment.

    Attributes:
        tally: running totals of the filed images and decided batches; never fall.
        claimed: images taken from the inbox and not done.
        pending: those, and the ones being claimed.
        oldest_us: when the oldest pending one was first seen, or None.
        last_filed_us: when an image was last filed, or None.
        messages: how many wait to be delivered, by channel.
        notices: how many wait for their message, by channel.
    """

    tally: Tally
    claimed: int
    pending: int
    oldest_us: int | None
    last_filed_us: int | None
    messages: Mapping[str, int] = field(default_factory=dict)
    notices: Mapping[str, int] = field(default_factory=dict)
