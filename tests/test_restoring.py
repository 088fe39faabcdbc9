"""After an older ledger was restored, what the logs hold and it does not is taken back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import audit
from rig import START, HandClock, Rig
from xray_watcher import records
from xray_watcher.commands import fsck, retry
from xray_watcher.commands.backup import backup
from xray_watcher.core.tally import CLASSIFIED, REJECTED
from xray_watcher.errors import Unavailable
from xray_watcher.ledger import restoring
from xray_watcher.ledger.restoring import logs_ahead, take_back
from xray_watcher.ledger.results_queries import missing_below
from xray_watcher.records import CSV_COLUMNS, FIRST_CSV_COLUMNS
from xray_watcher.service.folders import continue_behind_outputs

DAY_S = 86_400.0
LOG = "results-2026-11-23"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.ledger.close()


def ledger_path(rig: Rig) -> str:
    return str(rig.root / "state" / "ledger.sqlite3")


def save(rig: Rig) -> Path:
    """Back the ledger up as it is now."""
    copy = rig.root / "copy.sqlite3"
    copy.unlink(missing_ok=True)
    backup(ledger_path(rig), str(copy))
    return copy


def put_back(rig: Rig, copy: Path) -> Rig:
    """Put a backup in the ledger's place; the rig is not started as a service is."""
    rig.crash()
    for end in ("", "-wal", "-shm"):
        Path(ledger_path(rig) + end).unlink(missing_ok=True)
    shutil.copy(copy, ledger_path(rig))
    return Rig(rig.root, clock=rig.clock)


def start(rig: Rig) -> Rig:
    """What the service does when it starts, before it looks at the inbox."""
    continue_behind_outputs(rig.ledger, rig.settings.folders)
    return rig


def file(rig: Rig, *texts: str) -> list[bytes]:
    """File pictures, each by a name of its own."""
    arrived = [rig.drop(f"ward/{abs(hash(text))}.jpg", text) for text in texts]
    rig.settle()
    return arrived


def conflicts(rig: Rig) -> list[str]:
    return [name for name in os.listdir(rig.root / "logs") if "conflict" in name]


def counted(rig: Rig) -> dict[tuple[str, str, str], float]:
    tally = rig.ledger.totals().tally
    return {key: value for key, value in tally.items() if key[0] in (CLASSIFIED, REJECTED)}


def test_the_logs_of_the_day_lose_no_row_of_what_was_filed_since_the_backup(rig: Rig) -> None:
    """QC's CSV of the day had 4 of 8 rows (C11)."""
    arrived = file(rig, "picture:Edema#1", "no picture")
    copy = save(rig)
    arrived += file(rig, "picture:Edema#2", "nan", "picture:Fracture")
    before, days = counted(rig), rig.ledger.day_counts("2026-11-23")
    rig = start(put_back(rig, copy))
    assert counted(rig) == before
    assert missing_below(rig.ledger) == rig.ledger.next_index  # the list of results takes them in
    assert rig.ledger.day_counts("2026-11-23") == days
    assert fsck.check(rig.settings, deep=True) == []
    arrived += file(rig, "picture:Edema#3")
    arrived += [rig.drop("again.jpg", "picture:Edema#2")]
    rig.settle()
    audit.check(rig.root, arrived)
    audit.check_indexes(rig.root)
    assert audit.jsonl_records(rig.root)[-1]["duplicate_of"] == 2
    assert fsck.check(rig.settings, deep=True) == []
    assert conflicts(rig) == []
    rig.tick(60.0)
    assert json.loads((rig.root / "logs/daily/2026-11-23.json").read_text())["received"] == 7
    rig.crash()


def test_whatever_a_record_can_tell_is_taken_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, duplicates="set-aside")
    copy = save(rig)
    rig.drop(os.fsdecode(b"w\xffrd/\xfe\n=1.jpg"), "picture:Edema")
    rig.settle()
    rig.drop("same.jpg", "picture:Edema")
    rig.drop("a;b\"c',\u202e.jpg", "no picture")
    rig.settle()
    retry.put_back(rig.settings, ["2"], START, every=False)
    rig.settle()
    rows = [row for index in range(4) if (row := rig.ledger.image_with_index(index))]
    rig = start(put_back(rig, copy))
    taken = [row for index in range(4) if (row := rig.ledger.image_with_index(index))]
    same = ("state", "path", "size", "day", "sha256", "idx", "outcome", "level", "top_label",
            "reject_code", "folder", "filed_name", "removal", "retry_of")  # fmt: skip
    assert [[getattr(row, name) for name in same] for row in taken] == [
        [getattr(row, name) for name in same] for row in rows
    ]
    assert [row.state for row in taken] == ["DONE", "DONE", "RETRIED", "DONE"]
    assert fsck.check(rig.settings, deep=True) == []
    rig.crash()


def test_logs_of_an_earlier_version_with_fewer_columns_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "CSV_COLUMNS", CSV_COLUMNS[:FIRST_CSV_COLUMNS])
    rig = Rig(tmp_path)
    arrived = file(rig, "picture:Edema#1")
    copy = save(rig)
    arrived += file(rig, "picture:Edema#2", "no picture")
    old = put_back(rig, copy)
    monkeypatch.undo()
    rig = start(old)
    arrived += file(rig, "picture:Edema#3")
    assert [record["index"] for record in audit.jsonl_records(rig.root)] == [0, 1, 2, 3]
    assert rig.ledger.next_index == 4
    assert fsck.check(rig.settings, deep=True) == []
    assert conflicts(rig) == []
    rig.crash()


STEPS = (
    ("ledger", "begin_claims"), ("spool.inbox", "claim"), ("ledger", "decide"),
    ("spool.results", "file"), ("logs", "append"), ("ledger", "finish"),
)  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("part", "step"), STEPS)
def test_a_backup_of_any_moment_loses_and_doubles_nothing(
    rig: Rig, part: str, step: str, when: str
) -> None:
    arrived = file(rig, "picture:Edema#1")
    owner = attrgetter(part)(rig)
    call: Callable[..., Any] = getattr(owner, step)
    copies: list[Path] = []

    def saved(*args: Any, **kwargs: Any) -> Any:
        if not copies and when == "before":
            copies.append(save(rig))
        result = call(*args, **kwargs)
        if not copies:
            copies.append(save(rig))
        return result

    setattr(owner, step, saved)
    arrived += [rig.drop(f"{n}.jpg", f"picture:Edema#more{n}") for n in range(2)]
    arrived.append(rig.drop("b.jpg", "no picture"))
    rig.settle()
    arrived += file(rig, "picture:Edema#2")
    rig = start(put_back(rig, copies[0]))
    rig.settle()
    arrived += file(rig, "picture:Edema#3")
    audit.check(rig.root, arrived)
    assert fsck.check(rig.settings, deep=True) == []
    assert conflicts(rig) == []
    rig.crash()


def test_days_that_were_begun_since_are_taken_back_too(rig: Rig) -> None:
    arrived = file(rig, "picture:Edema#1")
    copy = save(rig)
    arrived += file(rig, "picture:Edema#2")
    rig.clock.passed_s += DAY_S
    arrived += file(rig, "picture:Edema#3", "no picture")
    rig.clock.passed_s += DAY_S
    rig = start(put_back(rig, copy))
    assert fsck.check(rig.settings, deep=True) == []
    arrived += file(rig, "picture:Edema#4")
    audit.check(rig.root, arrived)
    assert rig.ledger.day_counts("2026-11-24") == {"High": 1, "Rejected": 1}
    rig.crash()


def test_fsck_says_what_is_ahead_and_repairs_nothing_of_it(rig: Rig) -> None:
    file(rig, "picture:Edema#1")
    copy = save(rig)
    file(rig, "picture:Edema#2")
    rig = put_back(rig, copy)
    log = rig.root / "logs" / f"{LOG}.csv"
    content = log.read_bytes()
    told = [(each.kind, each.what) for each in fsck.check(rig.settings, deep=False)]
    assert ("ahead", LOG) in told
    assert not [each for each in told if each[0] == "log"]
    assert fsck.repair(rig.settings, START) == [
        f"log: {LOG} is left: it holds more than the ledger; start the service"
    ]
    assert log.read_bytes() == content
    assert fsck.check(start(rig).settings, deep=True) == []
    rig.crash()


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "another line": lambda log: log + b"mine\r\n",
    "a line less": lambda log: b"".join(log.splitlines(keepends=True)[:-2]),
    "another order": lambda log: b"".join(reversed(log.splitlines(keepends=True))),
    "other bytes": lambda log: log.replace(b"Edema", b"edema"),
    "not UTF-8": lambda log: log.replace(b"Edema", b"\xff\xfe"),
    "empty": lambda _log: b"",
}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_of_a_log_that_somebody_has_changed_nothing_false_is_taken(
    rig: Rig, edit: Callable[[bytes], bytes], form: str
) -> None:
    file(rig, "picture:Edema#1")
    copy = save(rig)
    file(rig, "picture:Edema#2", "no picture")
    true = {record["index"]: record for record in audit.jsonl_records(rig.root)}
    rig = put_back(rig, copy)
    log = rig.root / "logs" / f"{LOG}.{form}"
    edited = edit(log.read_bytes())
    log.write_bytes(edited)
    start(rig)
    file(rig, "picture:Edema#3")
    for record in audit.jsonl_records(rig.root)[:-1]:
        assert record == true[record["index"]]
    assert len(audit.csv_rows(rig.root)) == len(audit.jsonl_records(rig.root))
    kept = [(rig.root / "logs" / name).read_bytes() for name in conflicts(rig)]
    assert edited in kept or b"".join(edited.splitlines(True)) in log.read_bytes()
    rig.crash()


@pytest.mark.parametrize("keep", [-1, -30])
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_torn_line_at_the_end_of_a_log_is_no_record(rig: Rig, form: str, keep: int) -> None:
    file(rig, "picture:Edema#1")
    copy = save(rig)
    file(rig, "picture:Edema#2")
    file(rig, "picture:Edema#3")
    rig = put_back(rig, copy)
    log = rig.root / "logs" / f"{LOG}.{form}"
    log.write_bytes(log.read_bytes()[:keep])
    start(rig)
    file(rig, "picture:Edema#4")
    assert [record["index"] for record in audit.jsonl_records(rig.root)] == [0, 1, 3]
    assert len(audit.csv_rows(rig.root)) == 3
    rig.crash()


def test_what_is_interrupted_is_taken_back_whole_the_next_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = file(rig, "picture:Edema#1")
    copy = save(rig)
    arrived += file(rig, "picture:Edema#2", "picture:Edema#3")
    rig = put_back(rig, copy)
    for call in ("insert", "_set_watermarks", "mark_retried", "open_days"):
        with monkeypatch.context() as patched:
            patched.setattr(restoring.Restored, call, lambda *_args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                start(rig)
        assert rig.ledger.next_index == 1
        assert rig.ledger.image_with_index(1) is None
    start(rig)
    audit.check(rig.root, arrived)
    rig.crash()


def test_logs_that_cannot_be_read_are_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_path: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(restoring, "last_index_in", failing)
    file(rig, "picture:Edema#1")
    with pytest.raises(Unavailable, match="logs"):
        take_back(rig.ledger, str(rig.root / "logs"))


def test_a_new_ledger_takes_back_the_newest_day_and_no_more(tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=HandClock())
    empty = save(rig)
    file(rig, "picture:Edema#1")
    rig.clock.passed_s += DAY_S
    file(rig, "picture:Edema#2")
    rig = start(put_back(rig, empty))
    file(rig, "picture:Edema#3")
    assert [row.idx for row in rig.ledger.filed_rows()] == [1, 2]
    assert [record["index"] for record in audit.jsonl_records(rig.root)] == [0, 1, 2]
    assert conflicts(rig) == []
    rig.crash()


def test_a_ledger_that_was_not_restored_takes_nothing_back(rig: Rig) -> None:
    file(rig, "picture:Edema#1", "no picture")
    folder = str(rig.root / "logs")
    assert logs_ahead(rig.ledger, folder) == []
    assert take_back(rig.ledger, folder) == 0
    assert take_back(rig.ledger, str(rig.root / "nowhere")) == 0
