"""One connection to the ledger; whatever SQLite refuses becomes an error of ours."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Self

from xray_watcher.errors import LedgerError, XrayWatcherError
from xray_watcher.ledger.refusals import out_of_reach, refused, unreadable

Values = Sequence[object] | Mapping[str, object]


class CopyFailed(XrayWatcherError):
    """A copy of the ledger cannot be written; the message is SQLite's."""


class Connection:
    """Runs the statements of the ledger's modules.

    Args:
        sqlite: the connection of SQLite, without transactions of its own.
        explain: our error for one of SQLite's.
        is_unchanged: whether what was read still counts.
    """

    def __init__(
        self,
        sqlite: sqlite3.Connection,
        explain: Callable[[sqlite3.Error], XrayWatcherError],
        is_unchanged: Callable[[], bool] = lambda: True,
    ) -> None:
        self.sqlite = sqlite
        self.is_unchanged = is_unchanged
        self._explain = explain

    @classmethod
    def to_write(cls, path: str) -> Self:
        """Connect to a ledger, which is made when it is missing.

        Raises:
            LedgerError: it is damaged, or cannot be opened.
            Unavailable: its disk is full or read-only.
        """
        try:
            return cls(sqlite3.connect(path, isolation_level=None), partial(refused, path))
        except sqlite3.Error as error:
            raise refused(path, error) from error

    @classmethod
    def to_read(cls, path: str) -> Self:
        """Connect to a ledger beside a running daemon.

        Raises:
            LedgerError: it cannot be read, now or by this user.
        """
        try:
            return cls(_connected(path, "mode=ro"), partial(unreadable, path))
        except sqlite3.OperationalError as error:
            # Beside a ledger that nobody has open SQLite wants to make a file, which a user who
            # may only read cannot; without a write-ahead log the ledger file alone is the whole.
            if not _has_content(f"{path}-wal"):
                with suppress(sqlite3.OperationalError):
                    return cls.to_read_without_lock(path)
            if os.access(path, os.R_OK):
                raise out_of_reach(path, error) from error
            raise LedgerError(
                f"The ledger {path} cannot be read ({error}). Is this user in the service's group?"
            ) from error
        except sqlite3.DatabaseError as error:
            raise unreadable(path, error) from error

    @classmethod
    def to_read_without_lock(cls, path: str) -> Self:
        """Connect to the file as it lies there; what it says counts only if nobody writes."""
        before = _version(path)
        sqlite = _connected(path, "mode=ro&immutable=1")
        return cls(sqlite, partial(unreadable, path), lambda: _version(path) == before)

    def close(self) -> None:
        """Close it."""
        self.sqlite.close()

    def rows(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """All rows that a query finds: no statement stays open beside the daemon's writing."""
        try:
            return self.sqlite.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def row(self, sql: str, values: Values = ()) -> Any:
        """The first row that a query finds, a tuple; None when it finds none."""
        return next(iter(self.rows(sql, values)), None)

    def value(self, sql: str, *values: object) -> Any:
        """The first column of the first row that a query finds; None when it finds none."""
        return next((row[0] for row in self.rows(sql, values)), None)

    def execute(self, sql: str, values: Values = ()) -> int:
        """Carry out a statement; returns how many rows it has changed."""
        try:
            return self.sqlite.execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def execute_many(self, sql: str, values: Iterable[Values]) -> int:
        """Carry out a statement for each of some values; returns how many rows were changed."""
        try:
            return self.sqlite.executemany(sql, values).rowcount
        except sqlite3.Error as error:
            raise self._explain(error) from error

    @contextmanager
    def copied_to(self, path: str) -> Iterator[Connection]:
        """Copy everything as it is at one moment into an empty file, open in the block.

        Raises:
            CopyFailed: the copy cannot be written.
            LedgerError: the ledger is damaged.
        """
        try:
            with closing(sqlite3.connect(path)) as copy:
                self.sqlite.backup(copy)
                yield Connection(copy, self._explain)
        except sqlite3.OperationalError as error:
            raise CopyFailed(str(error)) from error
        except sqlite3.Error as error:
            raise self._explain(error) from error


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
