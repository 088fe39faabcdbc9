"""Reading the ledger: the queries that the daemon, `status`, `summary` and the web share.

What the tables mean stands in `ledger/ledger.py`, which alone writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Self

from xray_watcher.core.tally import Tally
from xray_watcher.errors import LedgerError, LedgerOutOfReach
from xray_watcher.ledger.connection import Connection
from xray_watcher.ledger.days import DayQueries
from xray_watcher.ledger.queries import IMAGE_COLUMNS
from xray_watcher.ledger.rows import ImageRow, LogLine, LogState, Totals
from xray_watcher.ledger.schema import check_version
from xray_watcher.ledger.states import (
    IS_DONE,
    IS_FILED,
    IS_KEPT,
    IS_OPEN,
    Delivery,
    RemovalState,
    State,
)

LAST_FILED = "last_filed_us"
"""The fact that says when an image was last filed."""


class LedgerReader(DayQueries):
    """Queries over one connection to the ledger.

    Every method may raise `LedgerError`: the ledger is damaged or cannot be read now.
    """

    @classmethod
    def open(cls, path: str) -> Self:
        """Open the ledger beside a running daemon, read only.

        Raises:
            LedgerError: there is no ledger at this path, it cannot be read, or this program
                does not know its version.
        """
        if not os.path.exists(path):
            raise LedgerError(f"There is no ledger at {path}: has `xray-watcher run` run here?")
        ledger = cls(Connection.to_read(path))
        try:
            check_version(path, int(ledger.db.value("PRAGMA user_version")))
        except LedgerError:
            ledger.close()
            raise
        return ledger

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Close the connection.

        Raises:
            LedgerError: the service started while the ledger was read without a lock.
        """
        self.close()
        if not self.db.is_unchanged():
            raise LedgerError("The service started while its ledger was read: call it again.")

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def copy_to(self, path: str) -> int:
        """Copy everything as it is at one moment into an empty file.

        Returns:
            The next index that the copy would give.

        Raises:
            CopyFailed: the copy cannot be written.
        """
        with self.db.copied_to(path) as copy:
            return LedgerReader(copy).next_index

    # -- facts ----------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """A remembered fact, such as the work folder."""
        value = self.db.value("SELECT value FROM meta WHERE key = ?", key)
        return None if value is None else str(value)

    @property
    def id(self) -> str:
        """The identity of this ledger; a copy of it has the same."""
        return str(self.meta("id"))

    @property
    def next_index(self) -> int:
        """The index that the next filed image gets."""
        return int(self.meta("next_index") or 0)

    def totals(self) -> Totals:
        """The running totals and what is pending; as quick with years of images as with none."""
        # One statement is one moment; the columns of the parts mean what their kind says.
        rows = self.db.rows(
            "SELECT 'tally', series, label, bucket, value FROM tally"
            " UNION ALL SELECT 'open', state, '', count(*), min(received_us) FROM image"
            f" WHERE {IS_OPEN} GROUP BY state"
            " UNION ALL SELECT 'message', channel, '', '', count(*) FROM message"
            f" WHERE state = '{Delivery.WAITING}' GROUP BY channel"
            " UNION ALL SELECT 'notice', channel, '', '', count(*) FROM notice GROUP BY channel"
            " UNION ALL SELECT 'filed', '', '', '', value FROM meta WHERE key = ?",
            (LAST_FILED,),
        )
        open_rows = {state: (count, oldest) for kind, state, _, count, oldest in rows
                     if kind == "open"}  # fmt: skip
        pending = sum(count for count, _ in open_rows.values())
        return Totals(
            tally=Tally({(s, label, b): v for kind, s, label, b, v in rows if kind == "tally"}),
            claimed=pending - open_rows.get(State.CLAIMING, (0, 0))[0],
            pending=pending,
            oldest_us=min((oldest for _, oldest in open_rows.values()), default=None),
            last_filed_us=next((int(v) for kind, *_, v in rows if kind == "filed"), None),
            messages={channel: v for kind, channel, *_, v in rows if kind == "message"},
            notices={channel: v for kind, channel, *_, v in rows if kind == "notice"},
        )

    # -- images ---------------------------------------------------------------------------

    def open_rows(self) -> list[ImageRow]:
        """Images that are claimed and not done, oldest first."""
        return self._images(f"WHERE {IS_OPEN} ORDER BY id")

    def image(self, image_id: int) -> ImageRow:
        """One image by its id.

        Raises:
            LedgerError: there is none.
        """
        for row in self._images("WHERE id = ?", image_id):
            return row
        raise LedgerError(f"The ledger has no image with the id {image_id}.")

    def filed_row(self, image_id: int) -> ImageRow | None:
        """One image by its id, if its file is filed; None when it is not, or not known."""
        where = f"WHERE id = ? AND {IS_FILED} AND filed_name IS NOT NULL"
        return next(iter(self._images(where, image_id)), None)

    def classified_index(self, sha256: bytes) -> int | None:
        """Index of the first classified image with the same bytes."""
        value = self.db.value(
            "SELECT min(idx) FROM image"
            " WHERE sha256 = ? AND idx IS NOT NULL AND outcome = 'classified'",
            sha256,
        )
        return None if value is None else int(value)

    def image_with_index(self, idx: int) -> ImageRow | None:
        """The image that was filed under an index, if there is one."""
        return next(iter(self._images("WHERE idx = ?", idx)), None)

    def filed_rows(self) -> Iterator[ImageRow]:
        """Every image that lies in a folder of results, in the order of the indexes."""
        rows = self._in_pages(f"SELECT idx, {IMAGE_COLUMNS} FROM image WHERE {IS_KEPT}")
        return (ImageRow(*row) for _, *row in rows)

    def is_sound(self) -> bool:
        """Whether the database file itself is whole."""
        try:
            return bool(self.db.value("PRAGMA quick_check") == "ok")
        except LedgerOutOfReach:
            raise
        except LedgerError:
            return False

    def rejections(self) -> list[ImageRow]:
        """Every image that was rejected and not tried again, oldest first."""
        return self._images(
            f"WHERE outcome = 'rejected' AND {IS_DONE} AND removal IS NULL ORDER BY idx"
        )

    def removals_begun(self) -> list[ImageRow]:
        """Images that retention was removing when the service ended."""
        return self._images(f"WHERE removal = '{RemovalState.BEGUN}' ORDER BY id")

    def logs_begun(self) -> list[LogState]:
        """Logs that retention was removing when the service ended."""
        return self._log_states("WHERE removal = ?", RemovalState.BEGUN)

    # -- records --------------------------------------------------------------------------

    def record_of(self, idx: int) -> LogLine:
        """The committed log bytes of one index."""
        (line,) = self._lines("WHERE idx = ?", idx)
        return line

    def lines(self, indexes: Sequence[int]) -> list[bytes]:
        """The JSONL lines of some indexes, in their order."""
        places = ", ".join("?" * len(indexes))
        sql = f"SELECT idx, jsonl FROM record WHERE idx IN ({places})"
        by_index: dict[int, bytes] = dict(self.db.rows(sql, indexes))
        return [by_index[index] for index in indexes]

    def log_state(self, name: str) -> LogState | None:
        """The cursor of a log, or None when it was never begun."""
        return next(iter(self._log_states("WHERE name = ?", name)), None)

    def log_states(self) -> list[LogState]:
        """The cursors of all logs that retention has left, oldest first."""
        return self._log_states("WHERE removal IS NULL ORDER BY name")

    def _log_states(self, where: str, *values: object) -> list[LogState]:
        sql = f"SELECT name, csv_header, jsonl_bytes, csv_bytes FROM log_file {where}"
        return [LogState(*row) for row in self.db.rows(sql, values)]

    def log_lines(self, name: str) -> Iterator[LogLine]:
        """Every finished record of one log, in order: what its files must hold."""
        rows = self._in_pages(
            "SELECT record.idx, log, jsonl, csv FROM record JOIN image USING (idx)"
            f" WHERE log = ? AND {IS_FILED}",
            name,
        )
        return (LogLine(*row) for row in rows)

    def log_for(self, day: str, csv_header: bytes) -> str:
        """Name of the day's log with these CSV columns: a new part when they have changed."""
        name, part = f"results-{day}", 1
        while (state := self.log_state(name)) is not None and (
            state.csv_header != csv_header or self._is_log_removed(name)
        ):
            part += 1
            name = f"results-{day}.{part}"
        return name

    def _is_log_removed(self, name: str) -> bool:
        value = self.db.value("SELECT removal FROM log_file WHERE name = ?", name)
        return value is not None
