"""What the API asks the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.states import IS_FILED
from xray_watcher.records import REJECTED

_SCANNED = 20_000
"""Records that one page looks at, at most: a rare flag must not make it read years."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, newest first.

    Attributes:
        lines: of the JSONL log.
        next_cursor: with which the next page is asked for; None when there is no more.
    """

    lines: tuple[bytes, ...]
    next_cursor: int | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are asked for; None or empty asks for all.

    Attributes:
        day: local day on which they were received.
        level: High, Medium, Low or Rejected.
        label: condition with the highest score.
        flag: that the record has.
        source: first folder below the inbox, or "web".
    """

    day: str | None = None
    level: str | None = None
    label: str | None = None
    flag: str | None = None
    source: str | None = None

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """SQL with one place for a value, and that value."""
        given = [(sql, getattr(self, name)) for name, sql in _CONDITIONS.items()]
        return [(sql, value) for sql, value in given if value is not None]


_CONDITIONS = {
    "day": "day = ?",
    "level": f"ifnull(level, '{REJECTED}') = ?",
    "label": "top_label = ?",
    "flag": "EXISTS (SELECT 1 FROM json_each(CAST(jsonl AS TEXT), '$.flags') AS f"
    " WHERE f.value = ?)",
    "source": "json_extract(CAST(jsonl AS TEXT), '$.source') = ?",
}


class WebLedger(LedgerReader):
    """The ledger as the API reads it."""

    def filed_uploads(self, batch: str) -> list[tuple[str, int, str]]:
        """The uploads of a request that are filed: upload, index and level of each."""
        return self.db.rows(
            f"SELECT upload, idx, ifnull(level, '{REJECTED}') FROM image"
            f" WHERE upload >= ? AND upload < ? AND {IS_FILED}",
            _range(batch),
        )

    def claimed_uploads(self, batch: str) -> dict[str, str]:
        """The uploads of a request that were claimed: their file names, by upload."""
        rows = self.db.rows(
            "SELECT upload, path FROM image WHERE upload >= ? AND upload < ?", _range(batch)
        )
        return {upload: path.decode("utf-8", "replace").partition("/")[2] for upload, path in rows}

    def lines(self, indexes: Sequence[int]) -> list[bytes]:
        """The JSONL lines of some indexes, in their order."""
        places = ", ".join("?" * len(indexes))
        sql = f"SELECT idx, jsonl FROM record WHERE idx IN ({places})"
        by_index: dict[int, bytes] = dict(self.db.rows(sql, indexes))
        return [by_index[index] for index in indexes]

    def page(self, wanted: Filter, cursor: int | None, limit: int) -> Page:
        """Records that were filed, newest first.

        Args:
            wanted: which ones.
            cursor: begin below this index; None begins at the newest.
            limit: most that are returned.
        """
        conditions = wanted.conditions
        where = " AND ".join(["1", *(sql for sql, _ in conditions)])
        rows = self.db.rows(
            "SELECT idx, jsonl FROM (SELECT * FROM image JOIN record USING (idx)"
            f" WHERE {IS_FILED} AND idx < ? {_day(wanted)} ORDER BY idx DESC LIMIT {_SCANNED})"
            f" WHERE {where} ORDER BY idx DESC LIMIT ?",
            (
                *_before(cursor),
                *([wanted.day] if wanted.day else []),
                *(value for _, value in conditions),
                limit,
            ),
        )
        if len(rows) == limit:
            return Page(tuple(line for _, line in rows), rows[-1][0])
        return Page(tuple(line for _, line in rows), self._beyond(wanted, cursor))

    def _beyond(self, wanted: Filter, cursor: int | None) -> int | None:
        """Where to go on when the records that were looked at held less than a page."""
        value = self.db.value(
            f"SELECT idx FROM image WHERE {IS_FILED} AND idx < ? {_day(wanted)}"
            f" ORDER BY idx DESC LIMIT 1 OFFSET {_SCANNED - 1}",
            *_before(cursor),
            *([wanted.day] if wanted.day else []),
        )
        return None if value is None else int(value)

    def line(self, index: int) -> bytes | None:
        """The JSONL line of one filed image."""
        value = self.db.value(
            f"SELECT jsonl FROM record JOIN image USING (idx) WHERE idx = ? AND {IS_FILED}", index
        )
        return None if value is None else bytes(value)


def _day(wanted: Filter) -> str:
    return "AND day = ?" if wanted.day else ""


def _before(cursor: int | None) -> tuple[int]:
    return (1 << 62 if cursor is None else cursor,)


def _range(batch: str) -> tuple[str, str]:
    """All names that begin with the batch's id and its dash."""
    return f"{batch}-", f"{batch}."
