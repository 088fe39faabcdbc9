"""`backup` and `fsck`: with the real service, but for its network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from arrivals import picture_number

import audit
from service import STUB, Service
from xray_watcher.core.naming import WORK_FOLDER


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "root", command=STUB)
    yield made
    made.kill()


def file(service: Service, *numbers: int) -> list[bytes]:
    """Drop pictures and let them be filed; a negative number is no picture."""
    contents = [picture_number(n) if n >= 0 else f"no picture {n}".encode() for n in numbers]
    for number, content in zip(numbers, contents, strict=True):
        (service.inbox / f"{number}.png").write_bytes(content)
    run_once(service)
    return contents


def run_once(service: Service) -> None:
    service.start("--once")
    assert service.ended() in (0, 3)


def state(service: Service) -> Path:
    return service.root.parent / "root-state"


def fsck(service: Service, *options: str) -> tuple[int, list[str]]:
    found = service.command("fsck", *options)
    assert not found.stderr
    return found.returncode, found.stdout.splitlines()


def test_a_sound_archive_has_no_differences(service: Service) -> None:
    file(service, 1, 2, -3)
    assert fsck(service, "--deep") == (0, ["0 differences."])


def test_every_difference_is_named_and_nothing_is_changed(service: Service) -> None:
    file(service, 1, 2, 3, -4)
    paths = sorted(audit.filed(service.root).values(), key=lambda path: path.name)
    paths[0].unlink()
    paths[1].write_bytes(b"x" * paths[1].stat().st_size)
    (paths[2].parent / "0777_mine.png").write_bytes(b"mine")
    rejected = next(path for path in paths if path.parent.name == "rejected")
    rejected.with_name(f"{rejected.name}.json").unlink()
    (csv,) = (service.root / "logs").glob("*.csv")
    csv.write_bytes(csv.read_bytes().replace(b"High", b"Low!"))
    before = {path: path.read_bytes() for path in service.root.rglob("*") if path.is_file()}
    code, lines = fsck(service, "--deep")
    assert code == 1
    kinds = sorted(line.partition(":")[0] for line in lines[:-1])
    assert kinds == ["changed", "log", "missing", "reason", "stranger"]
    assert any("0777_mine.png" in line for line in lines)
    after = {path: path.read_bytes() for path in service.root.rglob("*") if path.is_file()}
    assert after == before


def test_what_was_claimed_and_is_no_file_is_named(service: Service, tmp_path: Path) -> None:
    file(service, 1)
    left = service.root / WORK_FOLDER / f"{2:012d}"
    left.symlink_to(tmp_path)
    code, lines = fsck(service)
    assert (code, len(lines)) == (1, 2)
    assert lines[0].startswith(f"leftover: {left} ")
    file(service, 3)
    assert fsck(service) == (code, lines)


def test_repair_writes_reasons_and_logs_again_and_deletes_nothing(service: Service) -> None:
    arrived = file(service, 1, -2)
    (reason,) = (service.root / "rejected").glob("*.json")
    content = reason.read_bytes()
    reason.unlink()
    (csv,) = (service.root / "logs").glob("*.csv")
    edited = csv.read_bytes().replace(b"High", b"Low!")
    csv.write_bytes(edited)
    (jsonl,) = (service.root / "logs").glob("*.jsonl")
    jsonl.unlink()
    code, lines = fsck(service, "--repair")
    assert code == 0, lines
    assert reason.read_bytes() == content
    (kept,) = (service.root / "logs").glob("*.conflict-*")
    assert kept.read_bytes() == edited
    audit.check(service.root, arrived)
    code, (differences, copies) = fsck(service)
    assert (code, differences) == (0, "0 differences.")
    assert copies.startswith("1 edited logs are kept in ")


def test_repair_is_refused_while_the_service_runs(service: Service) -> None:
    service.start()
    service.wait_until(lambda: service.log.exists() and "watching" in service.log.read_text())
    assert service.command("fsck", "--repair").returncode == 11
    assert service.command("fsck").returncode == 0


def test_a_backup_is_made_while_the_service_works_and_never_overwrites(
    service: Service, tmp_path: Path
) -> None:
    for number in range(200):
        (service.inbox / f"{number}.png").write_bytes(picture_number(number))
    service.start()
    service.wait_until(lambda: bool(audit.filed(service.root)))
    target = tmp_path / "copy.sqlite3"
    made = service.command("backup", str(target))
    assert made.returncode == 0, made.stderr
    assert service.command("backup", str(target)).returncode == 2
    assert [p.name for p in tmp_path.glob("copy*")] == ["copy.sqlite3"]


def test_after_an_older_ledger_is_restored_no_index_is_used_twice_and_nothing_is_lost(
    service: Service, tmp_path: Path
) -> None:
    arrived = file(service, 1, 2)
    copy = tmp_path / "copy.sqlite3"
    assert service.command("backup", str(copy)).returncode == 0
    arrived += file(service, 3, 4, 5)
    for old in state(service).glob("ledger.sqlite3*"):
        old.unlink()
    shutil.copyfile(copy, state(service) / "ledger.sqlite3")
    arrived += file(service, 6)
    filed = audit.filed(service.root)
    assert sorted(audit.sha256(path.read_bytes()) for path in filed.values()) == sorted(
        audit.sha256(content) for content in arrived
    )
    indexes = [path.name[:4] for path in filed.values()]
    assert sorted(indexes) == ["0000", "0001", "0002", "0003", "0004", "0005"]
    logs = (service.root / "logs").glob("*.jsonl*")
    logged = {json.loads(line)["sha256"] for log in logs for line in log.read_text().splitlines()}
    assert logged == {audit.sha256(content) for content in arrived}
    audit.check(service.root, arrived)  # those that were filed after the backup are known again
    assert fsck(service)[0] == 0


@pytest.mark.parametrize("what", ["an older copy", "none"])
def test_a_ledger_that_was_put_back_by_hand_uses_no_index_twice_either(
    service: Service, tmp_path: Path, what: str
) -> None:
    arrived = file(service, 1, 2)
    copy = tmp_path / "copy.sqlite3"
    shutil.copyfile(state(service) / "ledger.sqlite3", copy)
    arrived += file(service, 3, 4, 5)
    for old in state(service).glob("ledger.sqlite3*"):
        old.unlink()
    if what == "an older copy":
        shutil.copyfile(copy, state(service) / "ledger.sqlite3")
    arrived += file(service, 6)
    filed = audit.filed(service.root)
    assert sorted(path.name[:4] for path in filed.values()) == [f"{n:04d}" for n in range(6)]
    assert sorted(audit.sha256(path.read_bytes()) for path in filed.values()) == sorted(
        audit.sha256(content) for content in arrived
    )


def test_a_claimed_file_survives_the_restore_of_an_older_ledger(
    service: Service, tmp_path: Path
) -> None:
    file(service, 1)
    copy = tmp_path / "copy.sqlite3"
    assert service.command("backup", str(copy)).returncode == 0
    (service.root / ".xray-watcher" / "000000000009").write_bytes(picture_number(9))
    shutil.copyfile(copy, state(service) / "ledger.sqlite3")
    run_once(service)
    audit.check(service.root, [picture_number(1), picture_number(9)])
