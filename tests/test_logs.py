"""`logs`: projections of the ledger, whatever happened to the files."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import audit
from rig import Rig
from xray_watcher import records
from xray_watcher.commands import fsck
from xray_watcher.commands.status import collect_status, to_text
from xray_watcher.core.image_record import ImageRecord
from xray_watcher.ledger import log_files as logs
from xray_watcher.ledger.log_files import LogFiles
from xray_watcher.records import CSV_COLUMNS, FIRST_CSV_COLUMNS, CsvLayout
from xray_watcher.system.files import write_all

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FORMS = ("jsonl", "csv")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


def file(rig: Rig, form: str) -> Path:
    return rig.root / "logs" / f"results-2026-11-23.{form}"


def conflicts(rig: Rig) -> list[Path]:
    return sorted((rig.root / "logs").glob("*.conflict-*"))


def file_one(rig: Rig, name: str) -> bytes:
    content = rig.drop(name, f"picture:Edema#{name}")
    rig.settle()
    return content


def test_lines_are_appended_and_the_head_of_the_csv_stands_once(rig: Rig) -> None:
    arrived = [file_one(rig, "a.jpg"), file_one(rig, "b.jpg")]
    audit.check(rig.root, arrived)
    assert file(rig, "csv").read_bytes().count(b'"index"') == 1
    assert file(rig, "csv").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("form", FORMS)
def test_a_deleted_log_is_made_anew_from_the_ledger(rig: Rig, form: str) -> None:
    arrived = [file_one(rig, "a.jpg")]
    file(rig, form).unlink()
    arrived.append(file_one(rig, "b.jpg"))
    audit.check(rig.root, arrived)
    assert not conflicts(rig)


@pytest.mark.parametrize("form", FORMS)
def test_an_edited_log_is_kept_beside_and_made_anew(rig: Rig, form: str) -> None:
    arrived = [file_one(rig, "a.jpg")]
    edited = file(rig, form).read_bytes().replace(b"Edema", b"Edemo")
    file(rig, form).write_bytes(edited)
    arrived.append(file_one(rig, "b.jpg"))
    audit.check(rig.root, arrived)
    assert [path.read_bytes() for path in conflicts(rig)] == [edited]


@pytest.mark.parametrize("form", FORMS)
def test_a_log_that_somebody_added_to_is_kept_beside_and_made_anew(rig: Rig, form: str) -> None:
    arrived = [file_one(rig, "a.jpg")]
    with file(rig, form).open("ab") as log:
        log.write(b"a note of mine\n")
    arrived.append(file_one(rig, "b.jpg"))
    audit.check(rig.root, arrived)
    assert len(conflicts(rig)) == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [1, 10, 500])
def test_a_log_that_lost_its_end_is_made_whole(rig: Rig, form: str, cut: int) -> None:
    arrived = [file_one(rig, "a.jpg")]
    content = file(rig, form).read_bytes()
    file(rig, form).write_bytes(content[:-cut])
    arrived.append(file_one(rig, "b.jpg"))
    audit.check(rig.root, arrived)


def test_a_log_changed_while_the_service_was_down_is_found_at_the_next_line(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    arrived = [file_one(rig, "a.jpg")]
    rig.crash()
    file(rig, "csv").write_bytes(b"mine now\r\n")
    rig = Rig(tmp_path)
    arrived.append(file_one(rig, "b.jpg"))
    rig.crash()
    audit.check(tmp_path, arrived)
    assert [path.read_bytes() for path in conflicts(rig)] == [b"mine now\r\n"]


def test_logs_that_cannot_be_written_wait_and_are_completed_later(rig: Rig) -> None:
    arrived = [file_one(rig, "a.jpg")]
    folder = rig.root / "logs"
    folder.rename(rig.root / "away")
    folder.write_text("in the way")
    arrived.append(rig.drop("b.jpg", "picture:Effusion"))
    rig.ticks(30)
    assert "work" in rig.health.problems
    folder.unlink()
    (rig.root / "away").rename(folder)
    rig.ticks(120)
    assert not rig.health.problems
    audit.check(rig.root, arrived)


@pytest.mark.parametrize("form", FORMS)
def test_a_disk_that_gets_full_within_a_line_leaves_no_part_of_it(
    rig: Rig, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = [file_one(rig, "a.jpg")]
    whole = file(rig, form).read_bytes()

    def half(fd: int, content: bytes, offset: int) -> None:
        if content.startswith(b"{") == (form == "jsonl"):
            os.pwrite(fd, content[: len(content) // 2], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(fd, content, offset)

    monkeypatch.setattr(logs, "write_all", half)
    arrived.append(rig.drop("b.jpg", "picture:Effusion"))
    rig.ticks(30)
    assert "work" in rig.health.problems
    assert file(rig, form).read_bytes() == whole
    monkeypatch.undo()
    rig.ticks(90)
    audit.check(rig.root, arrived)


def test_appending_the_same_lines_again_changes_nothing(rig: Rig) -> None:
    arrived = [file_one(rig, "a.jpg")]
    rig.engine.broken = False
    (line,) = rig.ledger.log_lines("results-2026-11-23")
    before = {form: file(rig, form).read_bytes() for form in FORMS}
    again = LogFiles(str(rig.root / "logs"), rig.ledger)
    state = rig.ledger.log_state(line.log)
    assert state is not None
    assert again.append([], NOW) == ([], [])
    assert {form: file(rig, form).read_bytes() for form in FORMS} == before
    audit.check(rig.root, arrived)


def test_a_deleted_folder_of_logs_is_made_anew_from_the_ledger(rig: Rig) -> None:
    arrived = [file_one(rig, "a.jpg")]
    shutil.rmtree(rig.root / "logs")
    arrived.append(file_one(rig, "b.jpg"))
    audit.check(rig.root, arrived)


def test_a_day_goes_on_in_its_file_where_an_earlier_version_wrote_rows_of_another_form(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are the bytes that the ledger keeps, so none of the old ones changes, even anew."""

    def as_before(layout: CsvLayout, record: ImageRecord) -> bytes:
        return with_numbers_missing_in_quotes(layout, record).replace(b",,", b',"",')

    with_numbers_missing_in_quotes = CsvLayout.row
    monkeypatch.setattr(CsvLayout, "row", as_before)
    arrived = [file_one(rig, "a.jpg")]
    before = file(rig, "csv").read_bytes()
    assert b',"",' in before
    monkeypatch.undo()
    arrived.append(file_one(rig, "b.jpg"))
    whole = file(rig, "csv").read_bytes()
    assert whole.startswith(before)
    assert b",,," in whole[len(before) :]
    file(rig, "csv").unlink()
    arrived.append(file_one(rig, "c.jpg"))
    assert file(rig, "csv").read_bytes().startswith(whole)
    assert [path.name for path in (rig.root / "logs").glob("*.csv*")] == [file(rig, "csv").name]
    audit.check(rig.root, arrived)


def test_a_day_on_which_a_column_is_added_goes_on_in_a_new_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the version before wrote stays as it is, and one file has one set of columns."""
    monkeypatch.setattr(records, "CSV_COLUMNS", CSV_COLUMNS[:FIRST_CSV_COLUMNS])
    rig = Rig(tmp_path)
    file_one(rig, "a.jpg")
    rig.crash()
    (before,) = [path.read_bytes() for path in (tmp_path / "logs").glob("*.csv")]
    assert b'"notice","' in before
    assert b"request_id" not in before
    monkeypatch.undo()
    rig = Rig(tmp_path)
    file_one(rig, "b.jpg")
    first, second = sorted((tmp_path / "logs").glob("*.csv"), reverse=True)
    assert (first.name, second.name) == ("results-2026-11-23.csv", "results-2026-11-23.2.csv")
    assert first.read_bytes() == before
    assert b'"notice","request_id","' in second.read_bytes()
    assert fsck.check(rig.settings, deep=True) == []
    assert conflicts(rig) == []
    rig.crash()


def test_a_log_that_is_edited_in_the_same_way_again_is_kept_once(rig: Rig) -> None:
    """Ten openings in Excel left ten whole copies (C25)."""
    log = rig.root / "logs" / "results-2026-11-23.csv"
    for number in range(4):
        rig.drop(f"{number}.jpg", f"picture:Edema#{number}")
        rig.settle()
        log.write_bytes([b"mine\r\n", b"mine, too\r\n"][number % 2])
    rig.drop("last.jpg", "picture:Edema#last")
    rig.settle()
    assert [path.read_bytes() for path in conflicts(rig)] == [b"mine\r\n", b"mine, too\r\n"]
    assert [str(path) for path in conflicts(rig)] == logs.edited_copies(str(rig.root / "logs"))
    assert len(audit.csv_rows(rig.root)) == 5


def test_an_edited_log_that_cannot_be_compared_is_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_paths: str, **_how: bool) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(logs.filecmp, "cmp", failing)
    log = rig.root / "logs" / "results-2026-11-23.csv"
    for number in range(3):
        rig.drop(f"{number}.jpg", f"picture:Edema#{number}")
        rig.settle()
        log.write_bytes(b"mine\r\n")
    assert len(conflicts(rig)) == 2


def test_edited_logs_are_counted_and_told(rig: Rig) -> None:
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    status = collect_status(rig.settings, rig.clock.now())
    assert status["edited_logs_kept"] == 0
    assert "edited logs" not in to_text(status)
    assert fsck.describe_log_copies(rig.settings) == ""
    (rig.root / "logs" / "results-2026-11-23.csv").write_bytes(b"mine\r\n")
    rig.drop("b.jpg", "picture:Edema#b")
    rig.settle()
    status = collect_status(rig.settings, rig.clock.now())
    assert status["edited_logs_kept"] == 1
    assert "edited logs kept as .conflict-TIME: 1" in to_text(status)
    assert fsck.describe_log_copies(rig.settings).startswith("1 edited logs are kept in ")
    assert fsck.check(rig.settings, deep=True) == []  # they are no differences
