"""State and results on disks that are full, read-only, locked or another's: the advice is safe."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faults
import pytest
from arrivals import picture_number
from faults import Faults

import audit
from machine import needs
from service import STUB, Service, environment
from test_full_disk import fill, put, small_disk, status
from xray_watcher.commands.status import collect_status
from xray_watcher.config.settings import Settings
from xray_watcher.core.times import from_us
from xray_watcher.errors import LedgerError, StorageFailure, Unavailable
from xray_watcher.ledger import connection
from xray_watcher.ledger.connection import Connection
from xray_watcher.ledger.ledger import Ledger, NewClaim
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.refusals import refused
from xray_watcher.system.files import copy
from xray_watcher.system.lock import InstanceLock

HARMFUL = ("Restore", "restore it", "move it away together", "service's group", "please report")
CLAIM = NewClaim(b"a.jpg", 1, 1, 1, "2026-11-23")


def run_once(service: Service) -> tuple[int, str]:
    """Exit code and standard error of `run --once`."""
    ended = subprocess.run(
        [*STUB, "run", "--once", "--config", str(service.config)],
        env=environment(**service.env),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return ended.returncode, ended.stderr


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@contextmanager
def held_by_another(ledger: Path) -> Iterator[None]:
    db = sqlite3.connect(ledger, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        db.close()


# -- what SQLite says, by the table -----------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (sqlite3.SQLITE_FULL, Unavailable, "make room there or raise the quota"),
        (sqlite3.SQLITE_IOERR_WRITE, Unavailable, "make room there or raise the quota"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, Unavailable, "make room there or raise the quota"),
        (sqlite3.SQLITE_BUSY, Unavailable, "Another program holds the ledger"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Unavailable, "Another program holds the ledger"),
        (sqlite3.SQLITE_LOCKED, Unavailable, "Another program holds the ledger"),
        (sqlite3.SQLITE_READONLY, Unavailable, "write permission"),
        (sqlite3.SQLITE_CANTOPEN, Unavailable, "write permission"),
        (sqlite3.SQLITE_IOERR_FSYNC, StorageFailure, "dmesg"),
        (sqlite3.SQLITE_IOERR_READ, StorageFailure, "dmesg"),
        (sqlite3.SQLITE_CORRUPT, LedgerError, "Restore it from a backup"),
        (sqlite3.SQLITE_CORRUPT_INDEX, LedgerError, "Restore it from a backup"),
        (sqlite3.SQLITE_NOTADB, LedgerError, "Restore it from a backup"),
        (sqlite3.SQLITE_MISMATCH, LedgerError, "cannot be used"),
    ],
)
def test_only_a_damaged_ledger_is_to_be_restored(
    tmp_path: Path, code: int, kind: type[Exception], said: str
) -> None:
    error = sqlite3.OperationalError("as SQLite puts it")
    error.sqlite_errorcode = code
    ours = refused(str(tmp_path / "ledger.sqlite3"), error)
    assert type(ours) is kind
    assert said in str(ours)
    assert ("Restore it" in str(ours)) == (code & 0xFF in (sqlite3.SQLITE_CORRUPT, 26))


def test_a_ledger_of_another_kind_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(b"this is no database " * 100)
    with pytest.raises(LedgerError, match=r"is damaged .* Restore it from a backup"):
        Ledger(str(path))


def test_a_write_that_the_kernel_refuses_is_waited_for_and_done_later(tmp_path: Path) -> None:
    """The limit of a file's size stands for a quota: SQLite calls both an I/O error."""
    with Ledger(str(tmp_path / "ledger.sqlite3")) as ledger:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        try:
            with pytest.raises(Unavailable, match="quota") as told:
                ledger.begin_claims([CLAIM])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert told.value.component == "disk"
        assert len(ledger.begin_claims([CLAIM])) == 1
        assert len(ledger.open_rows()) == 1


def test_a_ledger_that_another_program_holds_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    with Ledger(str(path)) as ledger:
        ledger.db.sqlite.execute("PRAGMA busy_timeout = 50")
        with held_by_another(path), pytest.raises(Unavailable, match="Another program") as told:
            ledger.begin_claims([CLAIM])
        assert told.value.component == "ledger"
        assert len(ledger.begin_claims([CLAIM])) == 1


def test_the_service_waits_for_a_held_ledger_and_goes_on_by_itself(tmp_path: Path) -> None:
    service = Service(tmp_path / "root", command=STUB)
    service.start()
    try:
        service.wait_until(lambda: service.log.exists() and "watching" in service.log.read_text())
        arrived = put(service, 1)
        service.wait_until(lambda: len(audit.logged(service.root)) == 1)
        with held_by_another(tmp_path / "root-state" / "ledger.sqlite3"):
            arrived += put(service, 2, 3)
            service.wait_until(
                lambda: "Another program holds" in json.dumps(status(service)["troubles"])
            )
        service.wait_until(lambda: len(audit.logged(service.root)) == 3)
        service.wait_until(lambda: status(service)["healthy"])
        assert service.stop() == 0
        audit.check(service.root, arrived)
    finally:
        service.kill()


def test_a_quota_that_is_used_up_is_named_and_the_service_goes_on_by_itself(
    tmp_path: Path,
) -> None:
    needs(faults.missing())
    quota = Faults(tmp_path)
    service = Service(tmp_path / "root", command=STUB, **quota.env)
    service.start()
    try:
        arrived = put(service, 1)
        service.wait_until(lambda: len(audit.logged(service.root)) == 1)
        used_up = quota.add("copy", "EDQUOT", mark="ledger.sqlite3-wal")
        arrived += put(service, 2, 3)
        service.wait_until(lambda: "raise the quota" in status(service)["troubles"].get("disk", ""))
        assert quota.hits(used_up)
        quota.lift(used_up)
        service.wait_until(lambda: len(audit.logged(service.root)) == 3)
        service.wait_until(lambda: status(service)["healthy"])
        assert service.stop() == 0
        audit.check(service.root, arrived)
    finally:
        service.kill()
        quota.close()


def test_a_start_beside_a_held_ledger_says_how_to_find_who_holds_it(tmp_path: Path) -> None:
    service = Service(tmp_path / "root", command=STUB)
    arrived = put(service, 1)
    assert run_once(service)[0] == 0
    arrived += put(service, 2)
    ledger = tmp_path / "root-state" / "ledger.sqlite3"
    with held_by_another(ledger):
        code, said = run_once(service)
    assert code == 1
    assert f"`fuser {ledger}` names it" in said
    for untrue in (*HARMFUL, "waited for"):
        assert untrue not in said
    assert run_once(service)[0] == 0
    audit.check(service.root, arrived)


# -- the folder of the state ------------------------------------------------------------------


def test_a_full_disk_at_the_start_is_called_full_and_nothing_is_advised_that_loses_records(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "root-state", "size=2m") as state:
        service = Service(tmp_path / "root", command=STUB)
        arrived = put(service, 1)
        assert run_once(service)[0] == 0
        for gone in ((), ("lock",), ("lock", "ledger.sqlite3-wal")):
            for name in gone:
                (state / name).unlink(missing_ok=True)
            ballast = fill(state, leave_bytes=0)
            code, said = run_once(service)
            told = service.command("status")
            ballast.unlink()
            assert code == 1, said
            assert "disk is full" in said
            for harmful in HARMFUL:
                assert harmful not in said + told.stdout + told.stderr
            assert "disk" in told.stdout, told
        arrived += put(service, 2)
        assert run_once(service)[0] == 0
        audit.check(service.root, arrived)


@pytest.mark.parametrize("how", ["read-only", "a file", "new and read-only"])
def test_a_state_dir_that_takes_nothing_is_named_with_what_to_do(tmp_path: Path, how: str) -> None:
    with small_disk(tmp_path / "root-state", "size=2m") as state:
        service = Service(tmp_path / "root", command=STUB)
        if how == "a file":
            (state / "file").touch()
            text = service.config.read_text().replace("-state", "-state/file")
            service.config.write_text(text)
        else:
            if how == "read-only":
                assert run_once(service)[0] == 0
            remount(state, "ro")
        code, said = run_once(service)
        assert code == 1
        assert str(state) in said
        wanted = "name another folder" if how == "a file" else "mount it for writing"
        assert wanted in said
        for harmful in HARMFUL:
            assert harmful not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_state_dir_of_another_user_is_named_with_who_needs_permission(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            InstanceLock(str(state / "lock")).__enter__()
        except Unavailable as error:
            code = 0 if "Give user 65534 write permission" in error.reason else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_status_tells_of_a_ledger_that_cannot_be_read_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_how: str) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    settings = Settings(root=str(tmp_path), state_dir=str(tmp_path))
    Ledger(settings.folders.ledger).close()
    monkeypatch.setattr(connection, "_connected", failing)
    told = collect_status(settings, from_us(0))
    assert "cannot be read now (disk I/O error)" in told["troubles"]["ledger"]
    assert "group" not in told["troubles"]["ledger"]


def test_what_was_read_without_a_lock_does_not_count_when_the_service_started_meanwhile(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "ledger.sqlite3")
    Ledger(path).close()
    reader = LedgerReader(Connection.to_read_without_lock(path))
    with reader:
        assert reader.open_rows() == []
    reader = LedgerReader(Connection.to_read_without_lock(path))
    with pytest.raises(LedgerError, match="call it again"), reader, Ledger(path) as ledger:
        ledger.begin_claims([CLAIM])


# -- the folders of the results ---------------------------------------------------------------


def test_results_on_a_disk_of_their_own_that_turns_read_only_and_full_are_waited_for(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with small_disk(root / "classified_images", "size=8m") as results:
        service = Service(root, command=STUB)
        arrived = put(service, 1)
        remount(results, "ro")
        code, said = run_once(service)
        assert code == 1
        assert "mount it for writing" in said
        assert "Give user" not in said
        remount(results, "rw")
        ballast = fill(results, leave_bytes=0)
        code, said = run_once(service)
        ballast.unlink()
        assert code == 1
        assert "disk is full" in said or "No space left on device" in said
        service.start()
        try:
            service.wait_until(lambda: len(audit.logged(root)) == 1)
            remount(results, "ro")
            arrived += put(service, 2)
            service.wait_until(lambda: "Read-only" in json.dumps(status(service)["troubles"]))
            remount(results, "rw")
            service.wait_until(lambda: len(audit.logged(root)) == 2)
            ballast = fill(results, leave_bytes=0)
            arrived += put(service, 3)
            service.wait_until(lambda: "No space" in json.dumps(status(service)["troubles"]))
            ballast.unlink()
            service.wait_until(lambda: len(audit.logged(root)) == 3)
            service.wait_until(lambda: status(service)["healthy"])
            assert service.stop() == 0
            audit.check(root, arrived)
            assert os.stat(results).st_dev != os.stat(root).st_dev
        finally:
            service.kill()


def test_a_disk_that_gives_files_to_nobody_takes_them_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user namespace without the file's owner answers EINVAL, other systems ENOTSUP."""

    def refuse(*_arguments: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fchown", refuse)
    (tmp_path / "film").write_bytes(picture_number(1))
    copy(str(tmp_path / "film"), str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == picture_number(1)
