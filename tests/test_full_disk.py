"""A disk that fills and empties while the service works; needs root and a kernel that mounts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from arrivals import picture_number

import audit
from service import STUB, Service

MB = 1 << 20


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets this user mount nothing")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def running(root: Path, low_water_bytes: int) -> Iterator[Service]:
    service = Service(root, command=STUB, XRAY_WATCHER_INTAKE__MIN_FREE_BYTES=str(low_water_bytes))
    text = service.config.read_text().replace("min_free_bytes = 0\n", "")
    service.config.write_text(text)
    service.start()
    try:
        service.wait_until(lambda: service.log.exists() and "watching" in service.log.read_text())
        yield service
    finally:
        service.kill()


def fill(disk: Path, leave_bytes: int) -> Path:
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with ballast.open("wb") as file:
        file.write(bytes(max(0, free - leave_bytes)))
    return ballast


def put(service: Service, *numbers: int) -> list[bytes]:
    contents = [picture_number(number) for number in numbers]
    for number, content in zip(numbers, contents, strict=True):
        (service.inbox / f"{number}.png").write_bytes(content)
    return contents


def status(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service.command("status", "--json").stdout)
    return found


def filed(service: Service, count: int) -> Callable[[], bool]:
    return lambda: len(audit.logged(service.root)) == count


def test_below_the_low_water_mark_it_stops_claiming_says_so_and_goes_on_by_itself(
    tmp_path: Path,
) -> None:
    with (
        small_disk(tmp_path / "disk", "size=16m") as disk,
        running(disk / "root", low_water_bytes=4 * MB) as service,
    ):
        arrived = put(service, 1, 2)
        service.wait_until(filed(service, 2))
        ballast = fill(disk, leave_bytes=2 * MB)
        arrived += put(service, 3, 4)
        service.wait_until(lambda: "disk" in status(service)["troubles"])
        assert len(list(service.inbox.iterdir())) == 2
        ballast.unlink()
        service.wait_until(filed(service, 4))
        service.wait_until(lambda: status(service)["healthy"])
        assert service.stop() == 0
        audit.check(service.root, arrived)


@pytest.mark.parametrize("options", ["size=16m", "size=64m,nr_inodes=40"])
def test_a_disk_that_is_full_to_the_last_byte_or_file_loses_nothing(
    tmp_path: Path, options: str
) -> None:
    with (
        small_disk(tmp_path / "disk", options) as disk,
        running(disk / "root", low_water_bytes=0) as service,
    ):
        arrived = put(service, 1, 2)
        service.wait_until(filed(service, 2))
        arrived += put(service, 3, 4, 5)
        (service.inbox / "6.png").write_bytes(b"not a picture")
        arrived.append(b"not a picture")
        ballast = [fill(disk, leave_bytes=0)] if "inodes" not in options else use_up_files(disk)
        service.wait_until(lambda: {"logs", "folders", "disk"} & set(status(service)["troubles"]))
        for path in ballast:
            path.unlink()
        service.wait_until(filed(service, 6))
        assert service.stop() == 0
        audit.check(service.root, arrived)


def use_up_files(disk: Path) -> list[Path]:
    made = []
    try:
        for number in range(1000):
            path = disk / f"empty-{number}"
            path.touch()
            made.append(path)
    except OSError:
        return made
    raise AssertionError("the number of files has no end")


def test_status_says_that_the_disk_is_full_also_when_the_daemon_could_never_tell(
    tmp_path: Path,
) -> None:
    with (
        small_disk(tmp_path / "disk", "size=16m") as disk,
        running(disk / "root", low_water_bytes=4 * MB) as service,
    ):
        fill(disk, leave_bytes=MB)
        os.kill(service.worker_pid, signal.SIGSTOP)
        (disk / "root-state" / "heartbeat.json").unlink(missing_ok=True)
        told = status(service)["troubles"]
        os.kill(service.worker_pid, signal.SIGCONT)
        assert service.stop() == 0
        assert "disk" in told
