"""`retry`: puts rejected files back, tells what became of each, and lets the service look."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import audit
from rig import START, Rig
from xray_watcher.commands import retry
from xray_watcher.system import files


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bells that were rung."""
    rung: list[str] = []
    monkeypatch.setattr(retry, "wake_from_outside", rung.append)
    return rung


def reject(rig: Rig, *paths: str) -> None:
    """Let files come and be set aside, with the indexes from 0 on."""
    for path in paths:
        rig.drop(path, f"words of {path!a}")
        rig.settle()


def command(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command as a person would."""
    folders = ("--root", str(rig.root), "--state-dir", str(rig.root / "state"))
    call = [sys.executable, "-m", "xray_watcher", "retry", *folders, *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def set_aside(rig: Rig) -> list[str]:
    return sorted(
        name for name in os.listdir(rig.settings.folders.rejected) if not name.endswith(".json")
    )


def test_the_way_back_is_shown_as_a_path_and_safe_in_every_part(rig: Rig) -> None:
    reject(rig, "ward/a.png", "li\nne/b.png")
    ended = command(rig, "--all")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "0000_a.png: waits to be tried again as ward/a.png",
        "0001_b.png: waits to be tried again as li%0Ane/b.png",
        "2 files wait to be tried again.",
    ]


@pytest.mark.parametrize("arguments", [("--all",), ("0", "1", "2")])
def test_a_file_that_cannot_go_back_is_told_and_keeps_no_other_from_it(
    rig: Rig, arguments: tuple[str, ...]
) -> None:
    reject(rig, "a.png", "ward/b.png", "c.png")
    in_the_way = Path(rig.spool.handover.folder, "retry-000000000001.image")
    in_the_way.write_text("somebody's")
    ended = command(rig, *arguments)
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == [
        "0000_a.png: waits to be tried again as a.png",
        "0002_c.png: waits to be tried again as c.png",
        "2 files wait to be tried again.",
    ]
    assert ended.stderr.startswith("0001_b.png: It cannot be handed over")
    assert set_aside(rig) == ["0001_b.png"]


def test_senders_folders_are_neither_made_nor_entered(rig: Rig) -> None:
    reject(rig, "ward/a.png", "er/b.png")
    (rig.inbox / "ward").rmdir()
    (rig.inbox / "er").rmdir()
    (rig.inbox / "er").symlink_to(rig.root)
    assert command(rig, "--all").returncode == 0
    assert os.listdir(rig.inbox) == ["er"]
    rig.settle()
    records = audit.jsonl_records(rig.root)
    assert [(r["inbox_path"], r["source"], r.get("retry_of")) for r in records] == [
        ("ward/a.png", "ward", None), ("er/b.png", "er", None),
        ("ward/a.png", "ward", 0), ("er/b.png", "er", 1),
    ]  # fmt: skip
    rows = audit.csv_rows(rig.root)
    assert [row["inbox_path"] for row in rows] == [r["inbox_path"] for r in records]


def test_a_name_that_is_no_text_is_kept_byte_by_byte(rig: Rig) -> None:
    reject(rig, os.fsdecode(b"w\xffrd/\xfe.png"))
    (outcome,) = retry.put_back(rig.settings, [], START, every=True)
    assert outcome.problem is None
    rig.settle()
    first, second = audit.jsonl_records(rig.root)
    assert second["inbox_path_b64"] == first["inbox_path_b64"]
    assert second["retry_of"] == 0


def test_two_calls_at_once_wait_for_each_other(rig: Rig) -> None:
    reject(rig, "a.png")
    with files.directory(rig.settings.folders.state) as state:
        fcntl.flock(state, fcntl.LOCK_EX)
        with ThreadPoolExecutor() as threads:
            call = threads.submit(retry.put_back, rig.settings, [], START, every=True)
            with pytest.raises(TimeoutError):
                call.result(timeout=0.5)
            assert set_aside(rig) == ["0000_a.png"]
            fcntl.flock(state, fcntl.LOCK_UN)
            assert [outcome.problem for outcome in call.result(timeout=60)] == [None]


def test_a_file_that_is_not_there_any_more_is_told_when_it_was_named_and_else_left_out(
    rig: Rig, rings: list[str]
) -> None:
    reject(rig, "a.png", "b.png")
    Path(rig.settings.folders.rejected, "0000_a.png").unlink()
    outcomes = retry.put_back(rig.settings, ["0", "1"], START, every=False)
    assert [(outcome.name, outcome.inbox_path) for outcome in outcomes] == [
        ("0000_a.png", None),
        ("0001_b.png", "b.png"),
    ]
    assert outcomes[0].problem == "It does not lie in the rejected folder any more."
    assert retry.put_back(rig.settings, [], START, every=True) == []
    assert len(rings) == 2


def test_the_service_is_told_of_what_is_back_even_if_the_disk_then_fails(
    rig: Rig, rings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(*_names: str, **_folders: int) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def failing(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    reject(rig, "a.png")
    monkeypatch.setattr(files, "rename_noreplace", across)
    monkeypatch.setattr(files.os, "fsync", failing)
    with pytest.raises(files.StorageFailure):
        retry.put_back(rig.settings, [], START, every=True)
    assert rings == [rig.settings.folders.waker]
    assert set_aside(rig) == ["0000_a.png"]


def test_everything_is_told_to_be_away_with_the_share_of_the_inbox(rig: Rig) -> None:
    reject(rig, "a.png", "ward/b.png")
    rig.ledger.set_meta("work", rig.spool.work.path)  # as a start does
    rig.inbox.rename(rig.root / "unmounted")
    ended = command(rig, "--all")
    assert (ended.returncode, ended.stdout) == (1, "0 files wait to be tried again.\n")
    assert [line.partition(":")[0] for line in ended.stderr.splitlines()] == [
        "0000_a.png",
        "0001_b.png",
    ]
    assert ended.stderr.count("Is the share mounted?") == 2
    assert not rig.inbox.exists()
