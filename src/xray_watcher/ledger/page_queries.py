"""What the pages ask of the ledger, beyond what others ask too: all of it along an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xray_watcher.core.image_record import ImageRecord
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import LogLine
from xray_watcher.ledger.states import IS_DONE, IS_FILED, State
from xray_watcher.records import from_jsonl

QUARTER_US = 15 * 60 * 1_000_000
"""Arrivals are counted by quarters of an hour: every time zone's hours begin with one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How many images of a day have one top condition and one level."""

    label: str
    level: str
    images: int


class PageLedger(LedgerReader):
    """The ledger as the pages read it; `with PageLedger.open(path) as ledger:`, in a thread."""

    def record(self, idx: int) -> ImageRecord | None:
        """The record of the image that was filed under an index, if it is finished."""
        jsonl = self.db.value(
            f"SELECT jsonl FROM record JOIN image USING (idx) WHERE record.idx = ? AND {IS_FILED}",
            idx,
        )
        return None if jsonl is None else from_jsonl(jsonl)

    def was_retried(self, idx: int) -> bool:
        """Whether the image with this index was rejected and has been tried again since."""
        state = self.db.value("SELECT state FROM image WHERE idx = ?", idx)
        return bool(state == State.RETRIED)

    def latest(self, limit: int) -> list[ImageRecord]:
        """The images that were filed last, newest first."""
        # CROSS JOIN holds SQLite to the records' order; else it may sort years of images.
        rows = self.db.rows(
            f"SELECT jsonl FROM record CROSS JOIN image USING (idx) WHERE {IS_DONE}"
            " ORDER BY record.idx DESC LIMIT ?",
            (limit,),
        )
        return [from_jsonl(jsonl) for (jsonl,) in rows]

    def latest_of_level(self, day: str, level: str, limit: int) -> list[ImageRecord]:
        """Images received on a day that have one level, newest first."""
        # By id and not by index: then the index of the days gives them in order, and no more.
        rows = self.db.rows(
            "SELECT jsonl FROM image CROSS JOIN record USING (idx) WHERE day = ?"
            f" AND outcome = 'classified' AND level = ? AND {IS_DONE} ORDER BY id DESC LIMIT ?",
            (day, level, limit),
        )
        return [from_jsonl(jsonl) for (jsonl,) in rows]

    def set_aside(self, day: str, limit: int) -> list[ImageRecord]:
        """Images received on a day, rejected and not tried again, newest first."""
        rows = self.db.rows(
            "SELECT jsonl FROM record JOIN image USING (idx) WHERE day = ?"
            f" AND outcome = 'rejected' AND {IS_DONE} ORDER BY record.idx DESC LIMIT ?",
            (day, limit),
        )
        return [from_jsonl(jsonl) for (jsonl,) in rows]

    def kinds(self, day: str) -> list[Kind]:
        """The classified images of a day by top condition, most frequent first."""
        rows = self.db.rows(
            "SELECT top_label, level, count(*) FROM image"
            " WHERE day = ? AND outcome = 'classified' AND top_label IS NOT NULL"
            f" AND {IS_DONE} GROUP BY 1, 2 ORDER BY 3 DESC, 1",
            (day,),
        )
        return [Kind(*row) for row in rows]

    def arrivals(self, day: str) -> list[tuple[int, int]]:
        """How many images were received in each quarter of an hour of a day.

        Returns:
            The quarter's beginning in microseconds since 1970, UTC, and the number.
        """
        rows = self.db.rows(
            "SELECT received_us / :quarter * :quarter, count(*) FROM image"
            " WHERE day = :day GROUP BY 1 ORDER BY 1",
            {"quarter": QUARTER_US, "day": day},
        )
        return [(int(start_us), int(count)) for start_us, count in rows]

    def neighbours(self, day: str) -> tuple[str | None, str | None]:
        """The nearest day with images before a day, and the nearest after it."""
        before = self.db.value("SELECT max(day) FROM image WHERE day < ?", day)
        after = self.db.value("SELECT min(day) FROM image WHERE day > ?", day)
        return before, after

    def indexes_around(self, idx: int) -> tuple[int | None, int | None]:
        """The nearest index in use below an index, and the nearest above it."""
        below = self.db.value("SELECT max(idx) FROM record WHERE idx < ?", idx)
        above = self.db.value("SELECT min(idx) FROM record WHERE idx > ?", idx)
        return below, above

    def logs_of(self, day: str) -> list[str]:
        """The logs whose records were decided on a day: one, or more after a change of labels."""
        rows = self.db.rows(
            "SELECT name FROM log_file WHERE name = ? OR name GLOB ? ORDER BY length(name), name",
            (f"results-{day}", f"results-{day}.*"),
        )
        return [str(name) for (name,) in rows]

    def log_part(self, name: str, after: int, limit: int) -> Sequence[LogLine]:
        """The next finished records of one log, behind an index."""
        lines: Iterator[LogLine] = self._lines(
            "JOIN image USING (idx) WHERE log = ? AND record.idx > ?"
            f" AND {IS_FILED} ORDER BY record.idx LIMIT ?",
            name,
            after,
            limit,
        )
        return list(lines)
