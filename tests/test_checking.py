"""`fsck` and `summary` beside a service that files on, and beside what a killed one left."""

from __future__ import annotations

import builtins
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import audit
from rig import Rig
from xray_watcher.commands import fsck
from xray_watcher.commands.fsck import check
from xray_watcher.commands.status import collect_status, collect_summary, to_text
from xray_watcher.intake.filing import ResultFolders
from xray_watcher.ledger.log_files import LogFiles
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.system.lock import InstanceLock

LOOKS = [(LedgerReader, "open_rows"), (ResultFolders, "names_in"), (LogFiles, "differing")]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """One image is filed and one set aside."""
    monkeypatch.setattr(fsck.time, "sleep", lambda _seconds: None)
    made = Rig(tmp_path)
    made.drop("a.jpg", "picture:Edema")
    made.drop("b.jpg", "unreadable")
    made.settle()
    yield made
    made.crash()


def running(rig: Rig) -> InstanceLock:
    return InstanceLock(rig.settings.folders.lock)


def file_before(rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[str]:
    """File an image before every look of this kind; returns the list of them."""
    look: Callable[..., Any] = getattr(owner, name)
    filed: list[str] = []
    busy = [False]

    def after_one_more(self: Any, *arguments: Any) -> Any:
        if not busy[0] and self is not rig.ledger:
            busy[0] = True
            filed.append(f"more-{len(filed)}.jpg")
            rig.drop(filed[-1], f"picture:Edema#{filed[-1]}")
            rig.settle()
            busy[0] = False
        return look(self, *arguments)

    monkeypatch.setattr(owner, name, after_one_more)
    return filed


def found(rig: Rig, *, deep: bool = False) -> list[tuple[str, str]]:
    return [(difference.kind, difference.what) for difference in check(rig.settings, deep=deep)]


@pytest.mark.parametrize(("owner", "name"), LOOKS)
@pytest.mark.parametrize("deep", [False, True])
def test_what_the_service_files_during_the_comparison_is_no_difference(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, deep: bool
) -> None:
    filed = file_before(rig, monkeypatch, owner, name)
    with running(rig):
        assert found(rig, deep=deep) == []
    assert filed


@pytest.mark.parametrize(("owner", "name"), LOOKS)
def test_true_differences_are_found_beside_a_service_that_files_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    missing, rejected = sorted(audit.filed(rig.root).values(), key=lambda path: path.name)
    missing.unlink()
    rejected.write_bytes(b"x" * rejected.stat().st_size)
    (rig.root / "rejected" / "0777_mine.jpg").write_bytes(b"mine")
    expected = [
        ("changed", f"rejected/{rejected.name}"),
        ("missing", f"{missing.parent.name}/{missing.name}"),
        ("stranger", "rejected/0777_mine.jpg (index 777)"),
    ]
    file_before(rig, monkeypatch, owner, name)
    with running(rig):
        assert sorted(found(rig, deep=True)) == expected


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("edit", ["a letter", "a line more", "none left"])
def test_an_edited_log_is_found_beside_a_running_service(rig: Rig, form: str, edit: str) -> None:
    (log,) = (rig.root / "logs").glob(f"*.{form}")
    content = log.read_bytes()
    if edit == "none left":
        log.unlink()
    else:
        log.write_bytes(content.replace(b"a", b"b", 1) if edit == "a letter" else content + b"x\n")
    with running(rig):
        assert found(rig) == [("log", log.name)]


def test_an_edited_log_is_found_although_the_service_goes_on_writing_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.clock.passed_s += 86_400
    (log,) = (rig.root / "logs").glob("*.csv")
    log.write_bytes(log.read_bytes().replace(b"a", b"b", 1))
    file_before(rig, monkeypatch, LogFiles, "differing")
    with running(rig):
        assert found(rig) == [("log", log.name)]


def test_an_image_that_is_taken_away_while_it_is_read_is_missing_and_no_crash(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = fsck._hash

    def taken_away(path: str) -> bytes:
        os.unlink(path)
        return read(path)

    monkeypatch.setattr(fsck, "_hash", taken_away)
    assert [kind for kind, _ in found(rig, deep=True)] == ["missing", "missing"]


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wanted: str, code: int) -> None:
    """Let a call fail where its first argument has a text in it."""
    call = getattr(owner, name)

    def fail(path: str, *arguments: Any, **options: Any) -> Any:
        if wanted in str(path):
            raise OSError(code, os.strerror(code), path)
        return call(path, *arguments, **options)

    monkeypatch.setattr(owner, name, fail)


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_looked_at(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector is what `fsck --deep` is there to find (C1e)."""
    rig.drop("c.jpg", "picture:Edema#c")
    rig.settle()
    (rig.root / "classified_images/High/0002_c.jpg").write_text("picture:Edema#x")
    for code in (errno.EIO, errno.EACCES):
        with monkeypatch.context() as patched:
            failing(patched, fsck.os, "open", "0000_a.jpg", code)
            told = check(rig.settings, deep=True)
        assert [(each.kind, each.what) for each in told] == [
            ("unreadable", "High/0000_a.jpg"),
            ("changed", "High/0002_c.jpg"),
        ]
        assert str(told[0]).startswith(f"unreadable: High/0000_a.jpg ({os.strerror(code)}; ")
    assert found(rig) == []  # whose bytes were not asked for


def test_what_cannot_be_read_beside_a_running_service_is_read_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(rig):
        with monkeypatch.context() as patched:
            failing(patched, fsck.os, "open", "0000_a.jpg", errno.EIO)
            assert found(rig, deep=True) == [("unreadable", "High/0000_a.jpg")]
        call, failures = fsck._hash, [OSError(errno.EIO, "once")]

        def once(path: str) -> bytes:
            if failures:
                raise failures.pop()
            return call(path)

        monkeypatch.setattr(fsck, "_hash", once)
        assert found(rig, deep=True) == []


@pytest.mark.parametrize(
    ("call", "wanted", "what"),
    [("listdir", "/rejected", "rejected/"), ("scandir", ".xray-watcher", ".xray-watcher")],
)
@pytest.mark.parametrize("error", [errno.EACCES, errno.ENOENT])
def test_a_folder_that_cannot_be_listed_is_named(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, call: str, wanted: str, what: str, error: int
) -> None:
    failing(monkeypatch, os, call, wanted, error)
    ((kind, told),) = found(rig)
    assert kind == "unreadable"
    assert told.endswith(what)


def test_a_log_that_cannot_be_read_is_named_and_stops_no_repair(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = rig.root / "rejected/0001_b.jpg.json"
    reason.unlink()
    failing(monkeypatch, builtins, "open", "results-2026-11-23.csv", errno.EIO)
    assert found(rig) == [
        ("reason", "rejected/0001_b.jpg.json"),
        ("unreadable", "results-2026-11-23"),
    ]
    assert fsck.repair(rig.settings, rig.clock.now()) == [
        "reason: written again beside index 1",
        "log: results-2026-11-23 cannot be written anew (Input/output error)",
    ]
    assert reason.exists()


def test_an_image_in_hand_is_a_difference_only_when_no_service_has_it(rig: Rig) -> None:
    rig.decoder.broken = True
    rig.drop("c.jpg", "picture:Edema#last")
    rig.ticks(20)
    (open_row,) = rig.ledger.open_rows()
    with running(rig):
        assert found(rig) == []
    assert found(rig) == [("open", f"image {open_row.id} is {open_row.state}")]


def test_a_service_that_ends_during_the_comparison_has_run_beside_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = running(rig)
    names_in = ResultFolders.names_in

    def after_the_last_one(self: ResultFolders, folder: str) -> list[str]:
        monkeypatch.undo()
        rig.drop("last.jpg", "picture:Edema#last")
        rig.settle()
        lock.__exit__()
        return names_in(self, folder)

    monkeypatch.setattr(ResultFolders, "names_in", after_the_last_one)
    monkeypatch.setattr(fsck.time, "sleep", lambda _seconds: None)
    with lock:
        assert found(rig) == []


def test_beside_no_service_one_comparison_is_enough(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(_seconds: float) -> None:
        raise AssertionError("nobody changes anything")

    monkeypatch.setattr(fsck.time, "sleep", wait)
    (rig.root / "rejected" / "mine.jpg").write_bytes(b"mine")
    assert found(rig) == [("stranger", "rejected/mine.jpg")]


def waiting(rig: Rig, day: str | None = None) -> int:
    figures = collect_summary(rig.settings, day, rig.clock.now())
    count: int = figures["waiting_in_inbox"]
    return count


@pytest.mark.parametrize("dropped", [(), ("c.jpg", "d.jpg")])
def test_a_summary_does_not_believe_the_heartbeat_that_a_killed_service_left(
    rig: Rig, dropped: tuple[str, ...]
) -> None:
    told = {"at": rig.clock.now().isoformat(), "waiting_in_inbox": 7}
    Path(rig.settings.folders.heartbeat).write_text(json.dumps(told))
    for name in dropped:
        rig.drop(name, "picture:Edema")
    assert waiting(rig) == len(dropped)
    assert waiting(rig) == collect_status(rig.settings, rig.clock.now())["waiting_in_inbox"]
    assert waiting(rig, "2026-11-22") == 0
    with running(rig):
        assert waiting(rig) == 7


def test_status_says_what_the_kernel_lacks_to_confine_decoders(rig: Rig) -> None:
    told = {"at": rig.clock.now().isoformat(), "sandbox_lacks": ["landlock"]}
    Path(rig.settings.folders.heartbeat).write_text(json.dumps(told))
    with running(rig):
        status = collect_status(rig.settings, rig.clock.now())
    assert status["sandbox_lacks"] == ["landlock"]
    assert "without landlock" in to_text({**status, "process": None})


def test_a_look_at_the_inbox_is_answered_although_this_process_has_the_ledger_open(
    rig: Rig,
) -> None:
    rig.drop("c.jpg", "picture:Edema")
    with LedgerReader.open(rig.settings.folders.ledger):
        status = collect_status(rig.settings, rig.clock.now())
    assert (status["waiting_in_inbox"], status["troubles"].get("inbox")) == (1, None)


def test_a_service_that_can_tell_nothing_is_not_called_healthy(rig: Rig) -> None:
    """Its disk was full before it had told anything."""
    (rig.root / "state" / "heartbeat.json").unlink(missing_ok=True)
    with running(rig):
        status = collect_status(rig.settings, rig.clock.now())
    assert status["alive"]
    assert not status["healthy"]
    assert list(status["troubles"]) == ["starting"]
