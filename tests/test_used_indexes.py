"""No index is given twice, in whatever way an older ledger came back."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rig import LABELS, Rig
from xray_watcher.errors import Unavailable
from xray_watcher.ledger.used_indexes import highest_index
from xray_watcher.records import CsvLayout
from xray_watcher.service.folders import continue_behind_outputs

YEAR_AHEAD = datetime(2027, 11, 23, 12, tzinfo=UTC)
BEHIND = datetime(2026, 10, 1, 12, tzinfo=UTC)


def log(folder: Path, name: str, *indexes: int, end: bytes = b"") -> None:
    folder.mkdir(exist_ok=True)
    lines = b"".join(json.dumps({"index": index}).encode() + b"\n" for index in indexes)
    (folder / name).write_bytes(lines + end)


def test_the_highest_is_that_of_all_logs_and_all_names(tmp_path: Path) -> None:
    logs, high, rejected = (tmp_path / name for name in ("logs", "High", "rejected"))
    folders = [str(high), str(rejected)]
    assert highest_index(str(logs), folders) == -1
    log(logs, "results-2027-11-23.jsonl", 0)
    log(logs, "results-2026-11-23.jsonl", 1, 2)
    log(logs, "results-2026-11-23.2.jsonl", 3, 7, end=b'{"index": 8')
    assert highest_index(str(logs), folders) == 7
    log(logs, "results-2026-11-20.jsonl.conflict-20261124T000000.000000Z", 9)
    assert highest_index(str(logs), folders) == 9
    rejected.mkdir()
    (rejected / "0012_a.jpg").touch()
    assert highest_index(str(logs), folders) == 12
    high.mkdir()
    (high / "0010_b.jpg").touch()
    (high / "12345_b.jpg").touch()
    assert highest_index(str(logs), folders) == 12345


@pytest.mark.parametrize(
    "name", ["notes.txt", "12_a.jpg", "202611301234_scan.jpg", "20261130123456_scan.jpg", "-0009_a"]
)
def test_what_is_no_index_of_ours_moves_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    log(tmp_path, "results-2026-11-23.jsonl", end=b'{"index": true}\n{"index": -1}\nmine\n')
    log(tmp_path, "other.jsonl", 10**12 - 1)
    assert highest_index(str(tmp_path), [str(tmp_path)]) == -1


def test_a_torn_end_of_many_bytes_hides_no_line(tmp_path: Path) -> None:
    log(tmp_path, "results-2026-11-23.jsonl", 4, end=b"\0" * 100_000)
    assert highest_index(str(tmp_path), []) == 4


def test_an_old_log_that_cannot_be_read_keeps_no_service_from_its_start(tmp_path: Path) -> None:
    log(tmp_path, "results-2026-11-23.jsonl", 4)
    (tmp_path / "results-2020-11-23.jsonl").mkdir()
    with capture_logs() as logs:
        assert highest_index(str(tmp_path), []) == 4
    assert [line["event"] for line in logs] == ["a log cannot be read"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"/file cannot be listed \(Not a directory\)"):
        highest_index(str(tmp_path / "logs"), [str(tmp_path / "file")])


def test_a_folder_that_is_said_to_be_gone_and_is_not_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "High").mkdir()

    def gone(path: str) -> list[str]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr(os, "listdir", gone)
    with pytest.raises(Unavailable, match=r"/High cannot be listed \(No such file"):
        highest_index(str(tmp_path / "logs"), [str(tmp_path / "High")])


def drop(rig: Rig, first: int, count: int) -> None:
    for number in range(first, first + count):
        rig.drop(f"p{number}.jpg", f"picture:Edema#{number}")
    rig.settle()


def clock_ahead(rig: Rig) -> None:
    now = rig.clock.now()
    rig.clock.set_to(YEAR_AHEAD)
    drop(rig, 0, 1)
    rig.clock.set_to(now)
    drop(rig, 1, 3)


def second_part_of_the_day(rig: Rig) -> None:
    drop(rig, 0, 2)
    rig.pipeline._completion._decider._layout = CsvLayout(LABELS[:3], None)
    drop(rig, 2, 2)


def nothing_before(rig: Rig) -> None:
    rig.tick()


def late_with_a_clock_behind(rig: Rig) -> None:
    drop(rig, 0, 2)
    rig.clock.set_to(BEHIND)


def no_logs(rig: Rig) -> None:
    shutil.rmtree(rig.root / "logs")
    (rig.root / "logs").mkdir()


def no_images(rig: Rig) -> None:
    for path in (rig.root / "classified_images" / "High").iterdir():
        path.unlink()


def all_stay(_rig: Rig) -> None:
    """The ordinary case."""


@pytest.mark.parametrize("lost", [all_stay, no_logs, no_images])
@pytest.mark.parametrize(
    "before", [nothing_before, clock_ahead, second_part_of_the_day, late_with_a_clock_behind]
)
def test_a_snapshot_of_the_ledger_that_is_put_back_by_cp_gives_no_index_twice(
    tmp_path: Path, before: Callable[[Rig], None], lost: Callable[[Rig], None]
) -> None:
    rig = Rig(tmp_path)
    before(rig)
    state = tmp_path / "state"
    shutil.copytree(state, tmp_path / "snapshot")  # with the write-ahead log: a disk's snapshot
    drop(rig, 10, 3)
    given = rig.ledger.next_index
    rig.crash()
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "snapshot", state)
    lost(rig)
    rig = Rig(tmp_path, clock=rig.clock)
    assert rig.ledger.next_index == given - 3
    continue_behind_outputs(rig.ledger, rig.settings.folders)
    drop(rig, 20, 2)
    names = os.listdir(tmp_path / "classified_images" / "High")
    indexes = [name.partition("_")[0] for name in names]
    assert len(indexes) == len(set(indexes)), sorted(names)
    assert rig.ledger.next_index == given + 2
