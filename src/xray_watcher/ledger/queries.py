"""What every group of queries stands on: a connection, and the ways in which rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xray_watcher.ledger.connection import Connection
from xray_watcher.ledger.rows import ImageRow, LogLine

PAGE = 500
"""Rows that are read at once by those who read many; a record has some kilobytes."""

IMAGE_COLUMNS = ", ".join(ImageRow.__slots__)


class Queries:
    """Queries over one connection.

    Attributes:
        db: the connection; for the modules of the ledger alone.
    """

    def __init__(self, db: Connection) -> None:
        self.db = db

    def _images(self, where: str, *values: object) -> list[ImageRow]:
        rows = self.db.rows(f"SELECT {IMAGE_COLUMNS} FROM image {where}", values)
        return [ImageRow(*row) for row in rows]

    def _in_pages(self, sql: str, *values: object, after: int = -1) -> Iterator[tuple[Any, ...]]:
        """Rows in the order of their index, which comes first in them, a page at a time.

        While a statement is open, the write-ahead log cannot start anew and grows with every
        batch. Whoever iterates may take hours; between two pages no statement is open.
        """
        while True:
            rows = self.db.rows(f"{sql} AND idx > ? ORDER BY idx LIMIT {PAGE}", (*values, after))
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def _lines(self, where: str, *values: object) -> Iterator[LogLine]:
        sql = f"SELECT record.idx, log, jsonl, csv FROM record {where}"
        return (LogLine(*row) for row in self.db.rows(sql, values))
