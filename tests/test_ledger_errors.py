"""Whatever SQLite refuses reaches a caller as an error of ours, with a sentence."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rig import Rig
from xray_watcher.commands.backup import backup
from xray_watcher.core.retention import RetentionRules
from xray_watcher.errors import (
    LedgerError,
    LedgerOutOfReach,
    StorageFailure,
    Unavailable,
    UsageError,
    XrayWatcherError,
)
from xray_watcher.ledger import connection
from xray_watcher.ledger.api_queries import WebLedger
from xray_watcher.ledger.ledger import NewClaim
from xray_watcher.ledger.outbox import Outbox
from xray_watcher.ledger.page_queries import PageLedger
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.refusals import unreadable
from xray_watcher.ledger.removals import Removals, share_of
from xray_watcher.ledger.results_queries import Filter, find_indexes

DAY = "2026-11-23"
CLAIM = NewClaim(b"b.jpg", 1, 1, 1, DAY)
RULES = RetentionRules({"High": 40}, 0, 0, 0)

READINGS: dict[str, Callable[[LedgerReader], object]] = {
    "meta": lambda ledger: ledger.meta("work"),
    "totals": LedgerReader.totals,
    "image": lambda ledger: ledger.image(1),
    "filed rows": lambda ledger: list(ledger.filed_rows()),
    "log lines": lambda ledger: list(ledger.log_lines(f"results-{DAY}")),
    "day": lambda ledger: list(ledger.day_finished(DAY)),
    "retention": lambda ledger: share_of(ledger, RULES, "High", 0),
    "list of results": lambda ledger: find_indexes(ledger, Filter(), 9),
    "line of the API": lambda ledger: WebLedger(ledger.db).line(0),
    "latest": lambda ledger: PageLedger(ledger.db).latest(9),
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A daemon at rest that has filed one image."""
    made = Rig(tmp_path)
    made.drop("a.jpg", "picture:Edema")
    made.settle()
    yield made
    made.crash()


class Refusing:
    """A connection that refuses everything in one way."""

    in_transaction = False

    def __init__(self, refused: sqlite3.Connection, code: int) -> None:
        self.close = refused.close
        self.error = sqlite3.OperationalError("as SQLite puts it")
        self.error.sqlite_errorcode = code

    def execute(self, *_args: object) -> None:
        raise self.error

    executemany = execute


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[LedgerReader, int], None]:
    """Lets a ledger's connection refuse from now on."""

    def refuse(ledger: LedgerReader, code: int) -> None:
        monkeypatch.setattr(ledger.db, "sqlite", Refusing(ledger.db.sqlite, code))

    return refuse


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS.keys())
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_IOERR_READ, LedgerOutOfReach),
        (sqlite3.SQLITE_BUSY, LedgerOutOfReach),
        (sqlite3.SQLITE_CORRUPT, LedgerError),
    ],
)
def test_a_reader_that_is_refused_in_its_midst_says_so_in_a_sentence(
    rig: Rig,
    reading: Callable[[LedgerReader], object],
    code: int,
    kind: type[Exception],
    refuse: Callable[[LedgerReader, int], None],
) -> None:
    with LedgerReader.open(rig.settings.folders.ledger) as ledger:
        refuse(ledger, code)
        with pytest.raises(LedgerError, match=r"The ledger /.*as SQLite puts it") as told:
            reading(ledger)
        assert type(told.value) is kind


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS.keys())
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_IOERR_READ, StorageFailure),
        (sqlite3.SQLITE_BUSY, Unavailable),
        (sqlite3.SQLITE_CORRUPT, LedgerError),
    ],
)
def test_the_service_that_is_refused_outside_a_transaction_waits_or_ends_with_a_sentence(
    rig: Rig,
    reading: Callable[[LedgerReader], object],
    code: int,
    kind: type[Exception],
    refuse: Callable[[LedgerReader, int], None],
) -> None:
    refuse(rig.ledger, code)
    with pytest.raises(kind, match="ledger"):
        reading(rig.ledger)


@pytest.mark.parametrize(
    "writing",
    [
        lambda rig: Outbox(rig.ledger).waiting(),
        lambda rig: Outbox(rig.ledger).forget_others([]),
        lambda rig: Removals(rig.ledger).begin([1], 0),
        lambda rig: rig.ledger.set_meta("a", "b"),
        lambda rig: rig.ledger.begin_claims([]),
    ],
)
def test_what_writes_is_refused_in_the_same_way(
    rig: Rig, writing: Callable[[Rig], object], refuse: Callable[[LedgerReader, int], None]
) -> None:
    refuse(rig.ledger, sqlite3.SQLITE_READONLY)
    with pytest.raises(Unavailable, match="cannot be written"):
        writing(rig)


def test_an_error_in_a_transaction_that_is_no_refusal_of_the_disk_is_ours_too(rig: Rig) -> None:
    (image,) = rig.ledger.filed_rows()
    claim = replace(CLAIM, size=None)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="constraint"):
        rig.ledger.begin_claims([CLAIM, claim])
    assert rig.ledger.open_rows() == []
    assert list(rig.ledger.filed_rows()) == [image]


def test_a_ledger_with_damaged_pages_is_called_damaged_by_whoever_reads_it(rig: Rig) -> None:
    rig.ledger.close()
    path = Path(rig.settings.folders.ledger)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(LedgerError, match="Restore it from a backup"), closing_reader(path) as old:
        list(old.filed_rows())
    with closing_reader(path) as old:
        assert not old.is_sound()


def closing_reader(path: Path) -> closing[LedgerReader]:
    db = sqlite3.connect(path)
    return closing(LedgerReader(connection.Connection(db, lambda e: unreadable(str(path), e))))


def test_a_copy_for_which_there_is_no_room_is_told(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    class Full(sqlite3.Connection):
        def backup(self, *_args: object, **_options: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **how: connect(*a, factory=Full, **how))
    with pytest.raises(UsageError, match="disk is full"):
        backup(rig.settings.folders.ledger, str(tmp_path / "copy.sqlite3"))
    assert not list(tmp_path.glob("copy*"))


def test_every_error_of_sqlite_has_an_error_of_ours() -> None:
    codes = [getattr(sqlite3, name) for name in dir(sqlite3) if name.startswith("SQLITE_")]
    for code in {code for code in codes if isinstance(code, int)}:
        error = sqlite3.OperationalError("as SQLite puts it")
        error.sqlite_errorcode = code
        told = unreadable("/state/ledger.sqlite3", error)
        assert isinstance(told, XrayWatcherError)
        assert "as SQLite puts it" in str(told)
