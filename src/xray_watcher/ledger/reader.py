"""Reading the ledger: the queries that the daemon, `status`, `summary` and the web share.

What the tables mean stands in `ledger/ledger.py`, which alone writes them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from xray_watcher.core.naming import LARGEST_INDEX
from xray_watcher.core.tally import Tally
from xray_watcher.errors import LedgerError, LedgerOutOfReach
from xray_watcher.ledger.schema import check_version

Outcome = Literal["classified", "rejected"]

OPEN_STATES = "state IN ('CLAIMING', 'CLAIMED', 'FILING')"
"""SQL for the images that are claimed and not done, as the partial index has it."""

LAST_FILED = "last_filed_us"
"""The fact that says when an image was last filed."""


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
        claimed: images taken from the inbox for good and not done.
        pending: those, and the ones being claimed.
        oldest_us: when the oldest pending one was first seen, or None.
        last_filed_us: when an image was last filed, or None.
        messages: how many wait to be delivered, by channel.
        notices: how many things no message tells yet, by channel.
    """

    tally: Tally
    claimed: int
    pending: int
    oldest_us: int | None
    last_filed_us: int | None
    messages: Mapping[str, int] = field(default_factory=dict)
    notices: Mapping[str, int] = field(default_factory=dict)


_COLUMNS = ", ".join(ImageRow.__slots__)

_DAY_IMAGES = (
    "SELECT idx, image.path, state, outcome, level, top_label, reject_code, received_us,"
    " filed_us, jsonl FROM image LEFT JOIN record USING (idx)"
)

PAGE = 500
"""Rows that are read at once by those who read many; a record has some kilobytes."""


class LedgerReader:
    """Queries over one connection to the ledger."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._is_unchanged: Callable[[], bool] = lambda: True

    @classmethod
    def open(cls, path: str) -> Self:
        """Open the ledger beside a running daemon, read only.

        Raises:
            LedgerError: there is no ledger at this path, it cannot be read, or this program
                does not know its version.
        """
        if not os.path.exists(path):
            raise LedgerError(f"There is no ledger at {path}: has `xray-watcher run` run here?")
        ledger = cls._opened(path)
        try:
            check_version(path, int(ledger._value("PRAGMA user_version")))  # noqa: SLF001
        except LedgerError:
            ledger.close()
            raise
        return ledger

    @classmethod
    def _opened(cls, path: str) -> Self:
        try:
            return cls(_connected(path, "mode=ro"))
        except sqlite3.OperationalError as error:
            # Beside a ledger that nobody has open SQLite wants to make a file, which a user who
            # may only read cannot; without a write-ahead log the ledger file alone is the whole.
            if not _has_content(f"{path}-wal"):
                with suppress(sqlite3.OperationalError):
                    return cls._as_it_lies_there(path)
            if os.access(path, os.R_OK):
                raise LedgerOutOfReach(
                    f"The ledger {path} cannot be read now ({error}). Its disk may be full or fail,"
                    " or another program holds it: `xray-watcher status` and `df` say more."
                ) from error
            raise LedgerError(
                f"The ledger {path} cannot be read ({error}). Is this user in the service's group?"
            ) from error
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"The ledger {path} cannot be read: {error}.") from error

    @classmethod
    def _as_it_lies_there(cls, path: str) -> Self:
        """Read the file without any lock; what it says counts only if nobody wrote meanwhile."""
        before = _version(path)
        reader = cls(_connected(path, "mode=ro&immutable=1"))
        reader._is_unchanged = lambda: _version(path) == before
        return reader

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Close the connection.

        Raises:
            LedgerError: the service started while the ledger was read without a lock.
        """
        self.close()
        if not self._is_unchanged():
            raise LedgerError("The service started while its ledger was read: call it again.")

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for a module that keeps tables of its own in the ledger."""
        return self._db

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy everything as it is at one moment into an empty database."""
        self._db.backup(target)

    # -- facts ----------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """A remembered fact, such as the work folder."""
        value = self._value("SELECT value FROM meta WHERE key = ?", key)
        return None if value is None else str(value)

    @property
    def id(self) -> str:
        """What tells this ledger from all others; a copy of it has the same."""
        return str(self.meta("id"))

    @property
    def next_index(self) -> int:
        """The index that the next filed image gets."""
        return int(self.meta("next_index") or 0)

    def totals(self) -> Totals:
        """The running totals and what is pending; as quick with years of images as with none."""
        # One statement is one moment; the columns of the parts mean what their kind says.
        rows = self._db.execute(
            "SELECT 'tally', series, label, bucket, value FROM tally"
            " UNION ALL SELECT 'open', state, '', count(*), min(received_us) FROM image"
            f" WHERE {OPEN_STATES} GROUP BY state"
            " UNION ALL SELECT 'message', channel, '', '', count(*) FROM message"
            " WHERE state = 'waiting' GROUP BY channel"
            " UNION ALL SELECT 'notice', channel, '', '', count(*) FROM notice GROUP BY channel"
            " UNION ALL SELECT 'filed', '', '', '', value FROM meta WHERE key = ?",
            (LAST_FILED,),
        ).fetchall()
        open_rows = {state: (count, oldest) for kind, state, _, count, oldest in rows
                     if kind == "open"}  # fmt: skip
        pending = sum(count for count, _ in open_rows.values())
        return Totals(
            tally=Tally({(s, label, b): v for kind, s, label, b, v in rows if kind == "tally"}),
            claimed=pending - open_rows.get("CLAIMING", (0, 0))[0],
            pending=pending,
            oldest_us=min((oldest for _, oldest in open_rows.values()), default=None),
            last_filed_us=next((int(v) for kind, *_, v in rows if kind == "filed"), None),
            messages={channel: v for kind, channel, *_, v in rows if kind == "message"},
            notices={channel: v for kind, channel, *_, v in rows if kind == "notice"},
        )

    # -- images ---------------------------------------------------------------------------

    def open_rows(self) -> list[ImageRow]:
        """Images that are claimed and not done, oldest first."""
        return self._images(f"WHERE {OPEN_STATES} ORDER BY id")

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
        where = "WHERE id = ? AND state IN ('DONE', 'RETRIED') AND filed_name IS NOT NULL"
        return next(iter(self._images(where, image_id)), None)

    def classified_index(self, sha256: bytes) -> int | None:
        """Index of the first classified image with the same bytes."""
        value = self._value(
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
        rows = self._in_pages(
            f"SELECT idx, {_COLUMNS} FROM image"
            " WHERE state = 'DONE' AND filed_name IS NOT NULL AND removal IS NULL"
        )
        return (ImageRow(*row) for _, *row in rows)

    def is_sound(self) -> bool:
        """Whether the database file itself is whole."""
        return bool(self._value("PRAGMA quick_check") == "ok")

    def rejections(self) -> list[ImageRow]:
        """Every image that was set aside and not tried again, oldest first."""
        return self._images(
            "WHERE outcome = 'rejected' AND state = 'DONE' AND removal IS NULL ORDER BY idx"
        )

    def removals_begun(self) -> list[ImageRow]:
        """Images that retention was removing when the service ended."""
        return self._images("WHERE removal = 'begun' ORDER BY id")

    # -- records --------------------------------------------------------------------------

    def record_of(self, idx: int) -> LogLine:
        """The committed log bytes of one index."""
        (line,) = self._lines("WHERE idx = ?", idx)
        return line

    def log_state(self, name: str) -> LogState | None:
        """The cursor of a log, or None when it was never begun."""
        row = self._db.execute(
            "SELECT name, csv_header, jsonl_bytes, csv_bytes FROM log_file WHERE name = ?", (name,)
        ).fetchone()
        return None if row is None else LogState(*row)

    def log_states(self) -> list[LogState]:
        """The cursors of all logs that retention has left, oldest first."""
        rows = self._db.execute(
            "SELECT name, csv_header, jsonl_bytes, csv_bytes FROM log_file"
            " WHERE removal IS NULL ORDER BY name"
        )
        return [LogState(*row) for row in rows]

    def log_lines(self, name: str) -> Iterator[LogLine]:
        """Every finished record of one log, in order: what its files must hold."""
        rows = self._in_pages(
            "SELECT record.idx, log, jsonl, csv FROM record JOIN image USING (idx)"
            " WHERE log = ? AND state IN ('DONE', 'RETRIED')",
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
        value = self._value("SELECT removal FROM log_file WHERE name = ?", name)
        return value is not None

    # -- days -----------------------------------------------------------------------------

    def days_to_summarise(self, today: str) -> list[str]:
        """Days whose summary is not closed yet, and today; oldest first."""
        # The recursion hops from day to day in the index: years of images cost nothing.
        rows = self._db.execute(
            "WITH RECURSIVE known (day) AS (SELECT min(day) FROM image UNION ALL"
            " SELECT (SELECT min(day) FROM image WHERE image.day > known.day) FROM known"
            " WHERE known.day IS NOT NULL)"
            " SELECT day FROM known WHERE day IS NOT NULL"
            " AND day NOT IN (SELECT day FROM summary_day WHERE closed = 1)"
            " UNION SELECT day FROM summary_day WHERE closed = 0 UNION SELECT ? ORDER BY 1",
            (today,),
        )
        return [str(row[0]) for row in rows]

    def day_pending(self, day: str) -> Iterator[DayImage]:
        """Images that were received on a day and are in hand, in the order of their claim."""
        rows = self._db.execute(
            f"{_DAY_IMAGES} WHERE {OPEN_STATES} AND +day = ? ORDER BY id", (day,)
        )
        return (DayImage(*row) for row in rows)

    def day_finished(self, day: str, after: int = -1) -> Iterator[DayImage]:
        """Images that were received on a day and are filed, in the order of their indexes.

        Args:
            day: as 2026-11-23.
            after: only those with a higher index than this.
        """
        last = LARGEST_INDEX
        if after < 0:
            first, last = self._db.execute(
                "SELECT min(idx), max(idx) FROM image WHERE day = ?", (day,)
            ).fetchone()
            if first is None:
                return
            after = first - 1
        # The plus keeps SQLite from the index over days, which would find all of this day.
        rows = self._in_pages(
            f"{_DAY_IMAGES} WHERE +day = ? AND idx <= ? AND filed_us IS NOT NULL",
            day,
            last,
            after=after,
        )
        yield from (DayImage(*row) for row in rows)

    def day_counts(self, day: str) -> dict[str, int]:
        """Images received on a day: by level, "Rejected", and "pending"."""
        rows = self._db.execute(
            "SELECT CASE WHEN state IN ('DONE', 'RETRIED') THEN ifnull(level, 'Rejected')"
            " ELSE 'pending' END, count(*) FROM image WHERE day = ? GROUP BY 1",
            (day,),
        )
        return {str(kind): int(count) for kind, count in rows}

    def day_removed(self, day: str) -> int:
        """How many images received on a day retention has removed."""
        return int(self._value("SELECT count(removal) FROM image WHERE day = ?", day))

    # -- helpers --------------------------------------------------------------------------

    def _images(self, where: str, *values: object) -> list[ImageRow]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM image {where}", values)
        return [ImageRow(*row) for row in rows]

    def _in_pages(self, sql: str, *values: object, after: int = -1) -> Iterator[tuple[Any, ...]]:
        """Rows in the order of their index, which comes first in them, a page at a time.

        While a statement is open, the write-ahead log cannot start anew and grows with every
        batch. Whoever iterates may take hours; between two pages no statement is open.
        """
        while True:
            rows = self._db.execute(
                f"{sql} AND idx > ? ORDER BY idx LIMIT {PAGE}", (*values, after)
            ).fetchall()
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def _lines(self, where: str, *values: object) -> Iterator[LogLine]:
        sql = f"SELECT record.idx, log, jsonl, csv FROM record {where}"
        return (LogLine(*row) for row in self._db.execute(sql, values))

    def _value(self, sql: str, *values: object) -> Any:
        row = self._db.execute(sql, values).fetchone()
        return None if row is None else row[0]


def _connected(path: str, how: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{_uri(path)}?{how}", uri=True, isolation_level=None)
    try:
        db.execute("SELECT 1 FROM meta").fetchone()
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _version(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _has_content(path: str) -> bool:
    return os.path.exists(path) and os.path.getsize(path) > 0


def _uri(path: str) -> str:
    return "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
