"""A ledger of an earlier version is brought up to date, whole or not at all, and files on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import audit
from mounted import small_disk
from rig import Rig
from xray_watcher.cli.main import main
from xray_watcher.commands import fsck
from xray_watcher.errors import LedgerError, Unavailable
from xray_watcher.ledger import schema
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.schema import MIGRATIONS, statements_after

VERSION_1 = Path(__file__).with_name("ledger_version_1.sql")
NEWEST = len(MIGRATIONS)
KILLED = 9

FILES = {
    ".xray-watcher/000000000006": "picture:Edema#e",  # decided as index 5, not filed
    ".xray-watcher/000000000007": "picture:Edema#f",  # claimed, its row says that it is about to be
    "classified_images/High/0000_a.jpg": "picture:Edema",
    "classified_images/Low/0003_d.jpg": "picture:Fracture",
    "rejected/0001_b.jpg": "words",
    "rejected/0004_c.jpg": "no picture",  # a retry of index 2
}


def old_ledger(path: Path) -> str:
    """The ledger of version 1 with classified, rejected, retried and open images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.executescript(VERSION_1.read_text())
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    return str(path)


def old_root(root: Path) -> list[bytes]:
    """A root as the service of version 1 left it; returns the bytes of every image."""
    old_ledger(root / "state" / "ledger.sqlite3")
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    with sqlite3.connect(root / "state" / "ledger.sqlite3") as db:
        reasons = db.execute(
            "SELECT filed_name, jsonl FROM image JOIN record USING (idx)"
            " WHERE outcome = 'rejected' AND state = 'DONE'"
        )
        for name, jsonl in reasons:
            (root / "rejected" / f"{name}.json").write_bytes(jsonl)
        (header,) = db.execute("SELECT csv_header FROM log_file").fetchone()
        records = db.execute(
            "SELECT jsonl, csv FROM record JOIN image USING (idx)"
            " WHERE state IN ('DONE', 'RETRIED') ORDER BY idx"
        ).fetchall()
    db.close()
    (root / "logs").mkdir()
    log = root / "logs" / "results-2026-11-23"
    log.with_suffix(".jsonl").write_bytes(b"".join(jsonl for jsonl, _ in records))
    log.with_suffix(".csv").write_bytes(header + b"".join(csv for _, csv in records))
    return [content.encode() for content in FILES.values()]


def check_all_are_filed(root: Path, arrived: list[bytes]) -> None:
    """Every image lies in a folder once, and has a record; so has the rejection of the retry."""
    records = audit.jsonl_records(root)
    assert [record["index"] for record in records] == list(range(len(arrived) + 1))
    assert records[4]["retry_of"] == 2
    filed = sorted(path.read_bytes() for path in audit.filed(root).values())
    assert filed == sorted(arrived)


def version_of(path: str) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    finally:
        db.close()


def layout_of(path: str) -> list[tuple[str, ...]]:
    """What tables, columns and indexes a ledger has."""
    db = sqlite3.connect(path)
    try:
        names = db.execute("SELECT type, name FROM sqlite_master ORDER BY 1, 2").fetchall()
        columns = [
            (name, *map(str, column))
            for kind, name in names
            if kind == "table"
            for column in db.execute(f"PRAGMA table_info({name})")
        ]
    finally:
        db.close()
    return [*names, *columns]


def dump_of(path: str) -> list[str]:
    db = sqlite3.connect(path)
    try:
        return list(db.iterdump())
    finally:
        db.close()


def test_a_ledger_of_version_1_is_brought_up_to_date_and_files_on(tmp_path: Path) -> None:
    arrived = old_root(tmp_path)
    rig = Rig(tmp_path)
    rig.settle()
    arrived.append(rig.drop("ward/g.jpg", "picture:Edema#g"))
    arrived.append(rig.drop("again.jpg", "picture:Edema"))
    rig.settle()
    rig.crash()
    check_all_are_filed(tmp_path, arrived)
    records = audit.jsonl_records(tmp_path)
    assert {record["duplicate_of"] for record in records if record["filename"] == "again.jpg"} == {
        0
    }
    assert fsck.check(rig.settings, deep=True) == []


def test_a_ledger_that_was_brought_up_to_date_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    path, new = old_ledger(tmp_path / "old.sqlite3"), str(tmp_path / "new.sqlite3")
    Ledger(path).close()
    Ledger(new).close()
    assert version_of(path) == version_of(new) == NEWEST
    assert layout_of(path) == layout_of(new)


def test_a_copy_of_the_old_ledger_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = old_ledger(tmp_path / "ledger.sqlite3")
    before = dump_of(path)
    (tmp_path / "ledger.sqlite3.version-1").write_text("of a try before, which was killed")
    Ledger(path).close()
    kept = tmp_path / "ledger.sqlite3.version-1"
    assert version_of(str(kept)) == 1
    assert dump_of(str(kept)) == before
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["ledger.sqlite3", "ledger.sqlite3.version-1"]
    Ledger(path).close()
    assert version_of(path) == NEWEST


def test_a_new_ledger_needs_no_copy(tmp_path: Path) -> None:
    Ledger(str(tmp_path / "ledger.sqlite3")).close()
    assert os.listdir(tmp_path) == ["ledger.sqlite3"]


def steps() -> list[str]:
    """Where the program is killed: at each step of the copy, and around each statement."""
    statements = ["BEGIN IMMEDIATE", *statements_after(1), "COMMIT"]
    files = [
        f"{when} {name}"
        for name in ("_copy", "sync", "replace", "sync_folder")
        for when in ("before", "after")
    ]
    return [*files, *(f"{when} {text}" for text in statements for when in ("before", "after"))]


@pytest.mark.parametrize("step", steps())
def test_a_kill_at_any_step_leaves_the_old_ledger_or_the_new_one(tmp_path: Path, step: str) -> None:
    arrived = old_root(tmp_path)
    path = str(tmp_path / "state" / "ledger.sqlite3")
    before = dump_of(path)
    assert killed_at(step, lambda: Ledger(path).close()) == KILLED
    is_new = step == "after COMMIT"
    assert version_of(path) == (NEWEST if is_new else 1)
    assert is_new or dump_of(path) == before
    rig = Rig(tmp_path)
    rig.settle()
    rig.crash()
    check_all_are_filed(tmp_path, arrived)
    assert version_of(path) == NEWEST
    assert dump_of(f"{path}.version-1") == before


def killed_at(step: str, action: Callable[[], None]) -> int:
    """Run an action in a process of its own that ends, as by a kill, at one step."""
    child = os.fork()
    if child == 0:
        try:
            _die_at(step)
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at(step: str) -> None:
    when, _, what = step.partition(" ")

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if when == "before":
                os._exit(KILLED)
            original(*args, **kwargs)
            os._exit(KILLED)

        return call

    if hasattr(schema, what):
        setattr(schema, what, dying(getattr(schema, what)))
        return

    class Dying(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> Any:
            if sql == what:
                return dying(super().execute)(sql, *args)
            return super().execute(sql, *args)

    connect = sqlite3.connect
    sqlite3.connect = (  # type: ignore[assignment]
        lambda *args, **kwargs: connect(*args, factory=Dying, **kwargs)
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_leaves_the_old_ledger_and_says_what_to_do(tmp_path: Path) -> None:
    source = old_ledger(tmp_path / "old.sqlite3")
    with small_disk(tmp_path / "disk", "512k") as disk:
        path = str(disk / "ledger.sqlite3")
        shutil.copyfile(source, path)
        before = dump_of(path)
        fill(disk, leave=48 * 1024)
        with pytest.raises(Unavailable, match=r"version-1.*make room"):
            Ledger(path)
        assert dump_of(path) == before
        assert sorted(name for name in os.listdir(disk) if "version" in name) == []
        (disk / "ballast").unlink()
        Ledger(path).close()
        assert version_of(path) == NEWEST


def fill(disk: Path, leave: int) -> None:
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "ballast").write_bytes(bytes(free - leave))


def test_a_disk_that_is_full_after_the_copy_changes_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = old_ledger(tmp_path / "ledger.sqlite3")
    before = dump_of(path)
    second, connect = list(statements_after(1))[1], sqlite3.connect

    class Full(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> Any:
            if sql == second:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return super().execute(sql, *args)

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", lambda *a, **how: connect(*a, factory=Full, **how))
        with pytest.raises(Unavailable, match="full"):
            Ledger(path)
    assert dump_of(path) == before
    Ledger(path).close()
    assert version_of(path) == NEWEST


@pytest.mark.parametrize("version", [1, NEWEST + 1])
def test_a_reader_of_another_version_says_what_to_do(tmp_path: Path, version: int) -> None:
    path = old_ledger(tmp_path / "ledger.sqlite3")
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    what = "Start the service of this program" if version == 1 else "Install the program that wrote"
    with pytest.raises(LedgerError, match=what):
        LedgerReader.open(path)


@pytest.mark.parametrize("version", [1, NEWEST + 1])
@pytest.mark.parametrize(
    "command",
    [
        ("status",), ("summary",), ("fsck",), ("fsck", "--repair"), ("retry", "--all"),
        ("retention", "--dry-run"), ("backup", "copy.sqlite3"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_commands_that_only_read_tell_of_another_version_in_a_sentence(
    tmp_path: Path,
    command: tuple[str, ...],
    version: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XRAY_WATCHER_RETENTION__LOW_DAYS", "99")
    path = old_ledger(tmp_path / "state" / "ledger.sqlite3")
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    before = dump_of(path)
    (tmp_path / "inbox").mkdir()
    folders = ["--root", str(tmp_path), "--state-dir", str(tmp_path / "state")]
    monkeypatch.setattr("sys.argv", ["xray-watcher", *command, *folders])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert f"has version {version}; this program" in told
    assert "Traceback" not in told
    assert dump_of(path) == before


def test_the_service_refuses_the_ledger_of_a_newer_program_in_a_sentence(tmp_path: Path) -> None:
    path = old_ledger(tmp_path / "state" / "ledger.sqlite3")
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {NEWEST + 1}")
    db.close()
    before = dump_of(path)
    folders = ["--root", str(tmp_path), "--state-dir", str(tmp_path / "state")]
    ended = subprocess.run(
        [sys.executable, "-m", "xray_watcher", "run", "--once", *folders],
        env={**os.environ, "XRAY_WATCHER_MODEL__WEIGHTS": "phantom"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 1
    assert f"has version {NEWEST + 1}; this program knows version {NEWEST}." in ended.stderr
    assert "Traceback" not in ended.stderr
    assert dump_of(path) == before
    assert not list(tmp_path.glob("state/*.version-*"))
