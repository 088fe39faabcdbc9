"""The ledger and its reader: states, indexes, and what happens when the disk does not obey."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from mounted import small_disk
from xray_watcher.core.times import from_us
from xray_watcher.errors import LedgerError, StorageFailure, Unavailable
from xray_watcher.ledger.effect import Filing
from xray_watcher.ledger.ledger import Decision, Ledger, NewClaim
from xray_watcher.ledger.queries import PAGE
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import LogState

HEADER = b"head\r\n"
DAY = "2026-11-23"
LOG = f"results-{DAY}"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite3")


@pytest.fixture
def ledger(path: str) -> Iterator[Ledger]:
    with Ledger(path) as made:
        yield made


def claim(name: bytes = b"a.jpg", day: str = DAY) -> NewClaim:
    return NewClaim(name, 10, 1_000_000, 2_000_000, day)


def decision(image_id: int, idx: int, *, sha256: bytes = b"s" * 32) -> Decision:
    return Decision(
        image_id, idx, 10, sha256, "classified", "High", "Edema", None, "High", f"{idx:04d}_a.jpg",
        f"results-{DAY}", f'{{"index":{idx}}}\n'.encode(), f"{idx}\r\n".encode(),
    )  # fmt: skip


def file_one(ledger: Ledger, idx: int) -> int:
    (image_id,) = ledger.begin_claims([claim()])
    ledger.decide([decision(image_id, idx)], HEADER)
    ledger.finish(Filing([image_id], [], from_us(3_000_000)), [LogState(LOG, HEADER, 12, 9)], ())
    return image_id


def test_an_image_goes_from_claim_to_done(ledger: Ledger) -> None:
    (image_id,) = ledger.begin_claims([claim()])
    assert [row.state for row in ledger.open_rows()] == ["CLAIMING"]
    ledger.decide([decision(image_id, 0)], HEADER)
    assert ledger.image(image_id).state == "FILING"
    assert list(ledger.log_lines(f"results-{DAY}")) == []
    ledger.finish(Filing([image_id], [], from_us(3_000_000)), [LogState(LOG, HEADER, 12, 9)], ())
    assert ledger.image(image_id).state == "DONE"
    assert ledger.open_rows() == []
    assert [line.idx for line in ledger.log_lines(f"results-{DAY}")] == [0]
    assert ledger.log_state(f"results-{DAY}") == LogState(f"results-{DAY}", HEADER, 12, 9)
    assert ledger.day_counts(DAY) == {"High": 1}


def test_the_next_index_goes_on_after_reopening_and_after_a_withdrawal(path: str) -> None:
    with Ledger(path) as ledger:
        assert ledger.next_index == 0
        file_one(ledger, 0)
        (image_id,) = ledger.begin_claims([claim()])
        ledger.decide([decision(image_id, 1)], HEADER)
        ledger.withdraw(image_id)
        assert ledger.image(image_id).idx is None
    with Ledger(path) as ledger:
        assert ledger.next_index == 2


def test_an_index_is_never_given_twice(ledger: Ledger) -> None:
    file_one(ledger, 0)
    (image_id,) = ledger.begin_claims([claim()])
    with pytest.raises(LedgerError, match="UNIQUE"):
        ledger.decide([decision(image_id, 0)], HEADER)
    assert ledger.image(image_id).state == "CLAIMING"
    assert [line.idx for line in ledger.log_lines(f"results-{DAY}")] == [0]


def test_a_claim_whose_file_never_left_the_inbox_is_forgotten(ledger: Ledger) -> None:
    one, other = ledger.begin_claims([claim(b"a.jpg"), claim(b"\xff.jpg")])
    ledger.decide([decision(other, 0)], HEADER)
    ledger.withdraw(other)
    assert ledger.image(other).state == "CLAIMED"
    ledger.drop_claims([one, other])
    (row,) = ledger.open_rows()
    assert row.path == b"\xff.jpg"
    assert os.fsencode(row.inbox_path) == b"\xff.jpg"


def test_ids_of_files_that_are_there_are_not_given_again(ledger: Ledger) -> None:
    ledger.reserve_ids(41)
    assert ledger.begin_claims([claim()]) == [42]
    ledger.reserve_ids(7)
    assert ledger.begin_claims([claim()]) == [43]


def test_the_first_image_with_the_same_bytes_is_found(ledger: Ledger) -> None:
    assert ledger.classified_index(b"s" * 32) is None
    file_one(ledger, 0)
    file_one(ledger, 1)
    assert ledger.classified_index(b"s" * 32) == 0
    assert ledger.classified_index(b"t" * 32) is None


def test_a_log_with_other_columns_gets_a_new_part(ledger: Ledger) -> None:
    assert ledger.log_for(DAY, HEADER) == f"results-{DAY}"
    file_one(ledger, 0)
    assert ledger.log_for(DAY, HEADER) == f"results-{DAY}"
    assert ledger.log_for(DAY, b"other\r\n") == f"results-{DAY}.2"


def test_days_stay_open_until_they_are_closed_and_open_again_for_a_late_claim(
    ledger: Ledger,
) -> None:
    file_one(ledger, 0)
    assert ledger.days_to_summarise("2026-11-24") == [DAY, "2026-11-24"]
    ledger.set_summarised(DAY, closed=True)
    assert ledger.days_to_summarise("2026-11-24") == ["2026-11-24"]
    ledger.begin_claims([claim(b"late.jpg")])
    assert ledger.days_to_summarise("2026-11-24") == [DAY, "2026-11-24"]


def test_others_read_while_the_service_writes_and_cannot_write(ledger: Ledger, path: str) -> None:
    file_one(ledger, 0)
    with LedgerReader.open(path) as reader:
        assert reader.next_index == 1
        file_one(ledger, 1)
        assert reader.next_index == 2
        with pytest.raises(LedgerError, match="readonly"):
            reader.db.execute("DELETE FROM image")


def test_a_path_with_signs_of_an_address_is_only_a_path(tmp_path: Path) -> None:
    path = str(tmp_path / "a?mode=rw#b%20.sqlite3")
    Ledger(path).close()
    with LedgerReader.open(path) as reader:
        assert reader.next_index == 0


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" * 300])
def test_a_damaged_ledger_is_told_with_what_to_do(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(LedgerError, match="backup"):
        Ledger(path)


def test_the_ledger_of_a_newer_program_is_left_alone(path: str) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match="version 99"):
        Ledger(path)


def test_no_ledger_is_told_to_those_who_only_read(path: str) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        LedgerReader.open(path)
    assert not os.path.exists(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_only_read_sees_the_ledger_whether_the_service_runs_or_not() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = f"{folder}/ledger.sqlite3"
        with Ledger(path) as ledger:
            ledger.begin_claims([claim()])
            assert _as_nobody(_pending, path) == b"1 pending"
        assert os.listdir(folder) == ["ledger.sqlite3"]
        assert _as_nobody(_pending, path) == b"1 pending"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_ledger_that_root_has_restored_is_not_called_damaged() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = f"{folder}/ledger.sqlite3"
        Ledger(path).close()
        for mode in (0o600, 0o644):
            os.chmod(path, mode)
            told = _as_nobody(lambda path: str(Ledger(path)), path)
            assert b"give it to the user" in told
            assert b"begin anew" not in told


def _pending(path: str) -> str:
    with LedgerReader.open(path) as reader:
        return f"{len(reader.open_rows())} pending"


def _as_nobody(action: Callable[[str], str], path: str) -> bytes:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(tell, action(path).encode())
        except (LedgerError, OSError) as error:
            os.write(tell, repr(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(tell)
    with open(told, "rb") as answer:
        return answer.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_changes_nothing_and_is_waited_for(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "256k") as disk,
        Ledger(str(disk / "ledger.sqlite3")) as ledger,
    ):
        _fill_and_empty(disk, ledger)


def _fill_and_empty(disk: Path, ledger: Ledger) -> None:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        _write_without_end(file)
    with pytest.raises(Unavailable, match="full"):
        _claim_without_end(ledger)
    before = len(ledger.open_rows())
    ballast.unlink()
    ledger.begin_claims([claim()])
    assert len(ledger.open_rows()) == before + 1


def _write_without_end(file: FileIO) -> None:
    while file.write(bytes(4096)):
        pass


def _claim_without_end(ledger: Ledger) -> None:
    while ledger.begin_claims([claim(b"x" * 200)]):
        pass


def test_a_disk_that_fails_stops_the_service(ledger: Ledger) -> None:
    class Failing:
        in_transaction = False

        def execute(self, *_args: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    real, ledger.db.sqlite = ledger.db.sqlite, Failing()  # type: ignore[assignment]
    try:
        with pytest.raises(StorageFailure):
            ledger.count_attempts([1])
    finally:
        ledger.db.sqlite = real


MANY = 3 * PAGE + 7


@pytest.fixture
def filled(path: str) -> Iterator[Ledger]:
    """A ledger with some pages of filed images of one day."""
    with Ledger(path) as ledger:
        ids = ledger.begin_claims([claim(b"%d.jpg" % n) for n in range(MANY)])
        ledger.decide([decision(image_id, n) for n, image_id in enumerate(ids)], HEADER)
        ledger.finish(Filing(ids, [], from_us(3_000_000)), [LogState(LOG, HEADER, 12, 9)], ())
        yield ledger


READINGS: dict[str, Callable[[LedgerReader], Iterator[object]]] = {
    "filed_rows": lambda reader: reader.filed_rows(),
    "log_lines": lambda reader: reader.log_lines(LOG),
    "day_finished": lambda reader: reader.day_finished(DAY),
    "day_finished after": lambda reader: reader.day_finished(DAY, after=5),
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS.keys())
def test_a_reader_that_stands_still_does_not_let_the_write_ahead_log_grow(
    filled: Ledger, path: str, reading: Callable[[LedgerReader], Iterator[object]]
) -> None:
    """`fsck --deep` reads for hours; beside an open SELECT the log took 13 KB an image (C13)."""
    with LedgerReader.open(path) as reader:
        rows = reading(reader)
        next(rows)
        for number in range(20):
            with filled.transaction():
                filled.set_meta("ballast", "x" * 1_000_000 + str(number))
        assert os.path.getsize(f"{path}-wal") < 8_000_000
        assert len(list(rows)) + 1 in (MANY, MANY - 6)


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS.keys())
def test_what_is_read_in_pages_is_sorted_by_no_page(
    filled: Ledger, reading: Callable[[LedgerReader], Iterator[object]]
) -> None:
    """A page that sorts, or begins anew at the first row, makes the whole cost its square."""
    asked: list[str] = []
    filled.db.sqlite.set_trace_callback(asked.append)
    assert len(list(reading(filled))) >= MANY - 6
    filled.db.sqlite.set_trace_callback(None)
    pages = [sql for sql in asked if "LIMIT" in sql]
    assert len(pages) == 4
    for sql in pages:
        plan = [row[3] for row in filled.db.sqlite.execute(f"EXPLAIN QUERY PLAN {sql}")]
        assert not [step for step in plan if "TEMP B-TREE" in step], plan
        assert "idx>?" in plan[0], plan


def test_what_is_read_in_pages_is_whole_and_in_order(filled: Ledger) -> None:
    assert [row.idx for row in filled.filed_rows()] == list(range(MANY))
    assert [line.idx for line in filled.log_lines(LOG)] == list(range(MANY))
    assert [image.idx for image in filled.day_finished(DAY)] == list(range(MANY))
    assert [i.idx for i in filled.day_finished(DAY, after=MANY - 3)] == [MANY - 2, MANY - 1]
    assert list(filled.day_finished("2026-11-22")) == []


def test_a_write_ahead_log_that_has_grown_is_cut_again(filled: Ledger, path: str) -> None:
    with LedgerReader.open(path) as reader:
        pinned = reader.db.sqlite.execute("SELECT id FROM image")
        pinned.fetchone()
        for number in range(30):
            with filled.transaction():
                filled.set_meta("ballast", "x" * 1_000_000 + str(number))
        assert os.path.getsize(f"{path}-wal") > 20_000_000
        pinned.close()
    for number in range(10):
        with filled.transaction():
            filled.set_meta("ballast", "x" * 1_000_000 + str(number))
    assert os.path.getsize(f"{path}-wal") < 17_000_000
