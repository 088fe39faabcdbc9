"""What is written into a restored ledger when records are taken back from the logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from xray_watcher.errors import XrayWatcherError
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.rows import LogLine
from xray_watcher.ledger.states import IS_DONE, IS_FILED, IS_OPEN, State


class NotOurs(XrayWatcherError):
    """A log holds something that this program did not write there."""


class Restored:
    """Writes into a restored ledger; call its methods in one transaction.

    Args:
        ledger: is written.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._db = ledger.db

    @contextmanager
    def log(self, name: str, csv_header: bytes) -> Iterator[None]:
        """Begin a log unless it is known, and set its watermarks behind what the block finishes.

        An error in the block undoes all of it.

        Raises:
            NotOurs: the log is known with other columns, or retention has removed it.
        """
        self._db.execute("SAVEPOINT log")
        try:
            self._begin(name, csv_header)
            yield
            self._set_watermarks(name)
        except BaseException:
            if self._db.sqlite.in_transaction:  # a full disk may have ended it
                self._db.execute("ROLLBACK TO log")
                self._db.execute("RELEASE log")
            raise
        self._db.execute("RELEASE log")

    def _begin(self, name: str, csv_header: bytes) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO log_file (name, csv_header) VALUES (?, ?)", (name, csv_header)
        )
        known = self._db.row("SELECT csv_header, removal FROM log_file WHERE name = ?", (name,))
        if known != (csv_header, None):
            raise NotOurs

    def insert(self, line: LogLine, columns: Mapping[str, object]) -> None:
        """Insert an image that was filed after the backup, and its record.

        When the backup was made it was perhaps open: that claim has become this image.
        """
        claims = self._db.rows(
            f"SELECT id, idx FROM image WHERE {IS_OPEN} AND path = :path"
            " AND received_us / 1000 = :received_us / 1000",
            columns,
        )
        for image_id, idx in claims:
            self._db.execute("DELETE FROM record WHERE idx = ?", (idx,))
            self._db.execute("DELETE FROM image WHERE id = ?", (image_id,))
        places = ", ".join(f":{name}" for name in columns)
        self._db.execute(f"INSERT INTO image ({', '.join(columns)}) VALUES ({places})", columns)
        self._db.execute(
            "INSERT INTO record VALUES (?, ?, ?, ?)", (line.idx, line.log, line.jsonl, line.csv)
        )

    def finish(self, line: LogLine, filed_us: int) -> bool:
        """Finish an image that was decided, and not logged yet, when the backup was made.

        Returns:
            Whether it was so.
        """
        finished = self._db.execute(
            "UPDATE image SET state = ?, filed_us = ? WHERE idx = ? AND state = ?"
            " AND EXISTS (SELECT 1 FROM record WHERE record.idx = image.idx AND jsonl = ?)",
            (State.DONE, filed_us, line.idx, State.FILING, line.jsonl),
        )
        return finished > 0

    def _set_watermarks(self, log: str) -> None:
        self._db.execute(
            "UPDATE log_file SET (jsonl_bytes, csv_bytes) = (SELECT ifnull(sum(length(jsonl)), 0),"
            " length(csv_header) + ifnull(sum(length(csv)), 0) FROM record JOIN image USING (idx)"
            f" WHERE log = :log AND {IS_FILED}) WHERE name = :log",
            {"log": log},
        )

    def mark_retried(self, indexes: Iterable[int]) -> None:
        """Note of rejections that they were tried again."""
        self._db.execute_many(
            f"UPDATE image SET state = '{State.RETRIED}' WHERE idx = ? AND {IS_DONE}"
            " AND outcome = 'rejected'",
            [(index,) for index in indexes],
        )

    def open_days(self, days: Iterable[str]) -> None:
        """Have the summaries of these days written again."""
        self._db.execute_many(
            "UPDATE summary_day SET closed = 0 WHERE day = ?", [(day,) for day in days]
        )
