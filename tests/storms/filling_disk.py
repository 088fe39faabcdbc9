"""A disk that fills and empties, again and again, while the service runs and files arrive.

    make fulldisk                                   # 20 times on each kind of file system
    make fulldisk ARGS="--times 5 --kinds ext4"

Results, logs and ledger lie on a small file system of their own: tmpfs, ext4 or XFS. It is filled
to its last byte, or to its last file; the service must say so in `status`, leave no torn line, and
go on by itself when there is room again. At the end the auditor checks folders and logs. The same
process must have lived through all of it.

Needs root and mounts; says so and counts as not run where they lack.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from arrivals import Arrivals  # noqa: E402

import audit  # noqa: E402
from machine import lacking  # noqa: E402
from service import Service  # noqa: E402

COMMAND = (sys.executable, str(HERE / "stub_service.py"))
MB = 1 << 20
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "4000"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
IMAGE_BYTES = {"ext4": 48 * MB, "xfs": 320 * MB}  # XFS takes no less than 300 MB
KINDS = ("tmpfs", *MAKE)
WAYS = {"tmpfs": ("bytes", "files"), "ext4": ("bytes", "files"), "xfs": ("bytes",)}


@dataclass(frozen=True)
class Filled:
    """What was done: how often the disk was filled, how many files arrived, the worst recovery."""

    times: int
    files: int
    longest_recovery_s: float


def missing() -> str | None:
    """Why it cannot be tried here, if it cannot."""
    if os.geteuid() != 0:
        return "it needs root"
    if why := lacking(**{"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mount": "mount"}):
        return why
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), "ext4"):
                return None
        except subprocess.CalledProcessError as error:
            return f"no loop mounts here ({error})"


@contextmanager
def small_disk(folder: Path, kind: str) -> Iterator[Path]:
    """A small file system of a kind, mounted."""
    mounted = folder / f"{kind}-mounted"
    mounted.mkdir()
    if kind == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m,nr_inodes=4000", "tmpfs", mounted]
    else:
        image = folder / f"{kind}.img"
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES[kind])
        subprocess.run([*MAKE[kind], image], check=True)
        mount = ["mount", "-o", "loop", image, mounted]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield mounted
    finally:
        unmounted = ["umount", mounted]
        for _ in range(50):
            if subprocess.run(unmounted, check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)


def storm(folder: Path, kind: str, times: int, seed: int, low_water_bytes: int = 0) -> Filled:
    """Fill and empty the disk of a running service so often.

    Raises:
        AssertionError: a promise was broken.
    """
    chance = random.Random(seed)
    with small_disk(folder, kind) as disk:
        service = _service(folder / "root", disk, low_water_bytes)
        arrivals = Arrivals(service.inbox, seed, pause_s=0.4)
        service.start()
        assert service.process is not None
        pid = service.process.pid
        worst_s = 0.0
        try:
            service.wait_until(lambda: service.log.exists() and "watching" in logged(service))
            arrivals.start()
            for _ in range(times):
                way = chance.choice(WAYS[kind])
                worst_s = max(worst_s, _fill_and_empty(service, disk, way, chance))
        finally:
            arrivals.stop()
        service.wait_until(lambda: not _left(service))
        assert pid == service.process.pid
        assert service.stop() == 0
        audit.check(disk, arrivals.arrived, inbox=service.inbox)
        audit.check_indexes(disk)
        return Filled(times, len(arrivals.arrived), worst_s)


def _service(root: Path, disk: Path, low_water_bytes: int) -> Service:
    env = {
        "XRAY_WATCHER_INTAKE__CLASSIFIED": str(disk / "classified_images"),
        "XRAY_WATCHER_INTAKE__REJECTED": str(disk / "rejected"),
        "XRAY_WATCHER_INTAKE__LOGS": str(disk / "logs"),
        "XRAY_WATCHER_STATE_DIR": str(disk / "state"),
        "XRAY_WATCHER_INTAKE__MIN_FREE_BYTES": str(low_water_bytes),
    }
    return Service(root, command=COMMAND, **env)


def _fill_and_empty(service: Service, disk: Path, way: str, chance: random.Random) -> float:
    """Returns the seconds from the room's return to a healthy service that has filed on."""
    ballast = fill_bytes(disk) if way == "bytes" else fill_files(disk)
    service.wait_until(lambda: bool(problems(service)))
    time.sleep(chance.uniform(0, 2))
    service.wait_until(lambda: _lines_are_whole(disk), seconds=5)
    done = len(audit.logged(disk))
    ballast()
    began_s = time.monotonic()
    service.wait_until(lambda: len(audit.logged(disk)) > done)
    service.wait_until(lambda: not problems(service))
    return time.monotonic() - began_s


def fill_bytes(disk: Path) -> Callable[[], None]:
    """Write until there is no room for another byte; returns how to undo it."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (MB, 4096, 1):
            with no_space():
                while True:
                    file.write(bytes(size))
    return path.unlink


def fill_files(disk: Path) -> Callable[[], None]:
    """Make files until there can be no other; returns how to undo it."""
    folder = disk / "ballast"
    folder.mkdir()
    made = []
    with no_space():
        for number in range(100_000):
            path = folder / str(number)
            path.touch()
            made.append(path)

    def empty() -> None:
        for path in made:
            path.unlink()
        folder.rmdir()

    return empty


@contextmanager
def no_space() -> Iterator[None]:
    """Go on when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def problems(service: Service) -> dict[str, str]:
    """What `status` says is out of order."""
    found: dict[str, str] = json.loads(service.command("status", "--json").stdout)["troubles"]
    return found


def logged(service: Service) -> str:
    return service.log.read_text()


def _lines_are_whole(disk: Path) -> bool:
    """Also while the disk is full: what is not whole is being written or taken back just now."""
    try:
        audit.jsonl_records(disk)
        audit.csv_rows(disk)
    except AssertionError:
        return False
    return True


def _left(service: Service) -> list[Path]:
    waiting = [path for path in service.inbox.rglob("*.png") if path.is_file()]
    work = service.root / ".xray-watcher"
    return waiting + [path for path in work.iterdir() if path.name.isdecimal()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20, help="on each kind of file system")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if why := missing():
        sys.exit(f"not run: {why}")
    for kind in options.kinds:
        for low_water_bytes in (0, 8 * MB):
            with tempfile.TemporaryDirectory(prefix="xray-watcher-full-") as folder:
                times = max(1, options.times // 2)
                found = storm(Path(folder), kind, times, options.seed, low_water_bytes)
                print(
                    f"{kind}, nothing claimed below {low_water_bytes // MB} MB: filled and emptied "
                    f"{found.times} times, {found.files} files, 0 violations; "
                    f"at work again after {found.longest_recovery_s:.1f} s at most",
                    flush=True,
                )


if __name__ == "__main__":
    main()
