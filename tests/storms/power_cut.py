"""Power cuts: the file system is shut down under the running service, without flushing anything.

    make powercut                                          # 100 cuts on ext4 and on XFS each
    make powercut ARGS="--cuts 30 --weakened normal"       # must find violations, or it is blind

A loop-mounted file system carries inbox, results and ledger. Files arrive (each one on the disk
before it counts as arrived, as its sender's part), another process writes and fsyncs beside the
service, and at a random moment the file system's own shutdown call throws away all that is not on
the disk. After a new mount the service runs until nothing is left, and the auditor checks.

Needs root, loop devices, mkfs.ext4 and mkfs.xfs; says so and counts as not run where they lack.
What it does not show: a disk that lies about its flushes, or reorders within its cache.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from arrivals import Sender, picture_number  # noqa: E402

import audit  # noqa: E402
from service import Service  # noqa: E402

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN, the same number on ext4 and XFS
WITHOUT_FLUSH = struct.pack("I", 2)
IMAGE_BYTES = 320 << 20  # XFS takes no less than 300 MB
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
EVIDENCE = Path(tempfile.gettempdir()) / "xray-watcher-evidence"  # what a violation left
NOISE = """
import os, random, sys, time
while True:
    with open(sys.argv[1], "ab", 0) as file:
        file.write(b"noise" * 100)
        os.fsync(file.fileno())
    time.sleep(random.uniform(0.005, 0.04))
"""


class DurableSender(Sender):
    """Drops pictures and texts; each counts as arrived when it is on the disk under its name."""

    def __init__(self, inbox: Path, seed: int) -> None:
        super().__init__(inbox)
        self.in_flight: bytes | None = None
        self.power_goes = threading.Event()
        self._seed = seed

    def _drop_on(self) -> None:
        chance = random.Random(self._seed)
        with suppress(OSError):  # the cut
            for number in range(100_000):
                if self._ended.is_set():
                    return
                is_text = chance.random() < 0.1
                content = f"note {self._seed} {number}".encode()
                if not is_text:
                    content = picture_number(self._seed * 100_000 + number)
                if chance.random() < 0.1 and self.arrived:
                    content = chance.choice(self.arrived)
                self._drop(f"{number}.png", content)
                if self.power_goes.is_set():
                    return
                time.sleep(chance.choice((0, 0, 0.01, 0.1)))

    def _drop(self, name: str, content: bytes) -> None:
        self.in_flight = content
        part = self._inbox / f"{name}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, self._inbox / name)
        folder = os.open(self._inbox, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        if self.power_goes.is_set():
            return  # XFS may say yes to a flush that it drops in this moment: nobody was told
        self.arrived.append(content)
        self.in_flight = None


class Disk:
    """A loop-mounted file system that can lose its power."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._image, self.mounted = folder / f"{kind}.img", folder / f"{kind}-mounted"
        self.mounted.mkdir()
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        subprocess.run([*MAKE[kind], self._image], check=True)

    def mount(self) -> None:
        """Mount it; again where another namespace still holds the one that lost its power."""
        for _ in range(120):
            subprocess.run(["mount", "-o", "loop", self._image, self.mounted], check=True)
            try:
                (self.mounted / "alive").write_bytes(b"yes")
            except OSError:
                self.unmount()
                time.sleep(0.5)
            else:
                return
        raise RuntimeError(f"{self.mounted} is held by another namespace")

    def cut(self) -> None:
        """From now on nothing reaches the disk, and what has not, is lost."""
        fd = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, WITHOUT_FLUSH)
        finally:
            os.close(fd)

    def unmount(self) -> None:
        for _ in range(600):  # what was killed may take a while to let go
            if subprocess.run(["umount", self.mounted], capture_output=True).returncode == 0:  # noqa: PLW1510
                return
            time.sleep(0.1)
        subprocess.run(["umount", "--lazy", self.mounted], check=True)
        raise RuntimeError(f"{self.mounted} stayed busy")


def missing() -> str | None:
    """Why power cuts cannot be tried here, if they cannot."""
    if os.geteuid() != 0:
        return "it needs root"
    if lacking := [tool for tool in ("mkfs.ext4", "mkfs.xfs", "mount") if not shutil.which(tool)]:
        return f"{', '.join(lacking)} not installed (apt-get install e2fsprogs xfsprogs mount)"
    with tempfile.TemporaryDirectory() as folder:
        try:
            disk = Disk(Path(folder), "ext4")
            disk.mount()
        except subprocess.CalledProcessError as error:
            return f"no loop mounts here ({error})"
        disk.unmount()
    return None


def cuts(kind: str, count: int, seed: int, weakened: str | None = None) -> Iterator[str | None]:
    """Cut the power so often; yields for each cut what was broken, None if nothing was.

    Args:
        kind: "ext4" or "xfs".
        count: how often.
        seed: of the moments.
        weakened: what the service goes without: "normal" (full commits) or "fsync".
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="xray-watcher-power-") as folder:
        disk = Disk(Path(folder), kind)
        disk.mount()
        try:
            for number in range(count):
                root = disk.mounted / f"root-{number}"
                service = _service(root, Path(folder) / "service.log", weakened)
                try:
                    _until_the_cut(service, disk, chance)
                    yield None
                except AssertionError as error:
                    shutil.copytree(root, EVIDENCE / f"{kind}-{seed}-{number}", dirs_exist_ok=True)
                    yield audit.named(error)
                finally:
                    service.kill()
                shutil.rmtree(root)
        finally:
            disk.unmount()


def _service(root: Path, log: Path, weakened: str | None) -> Service:
    script = "weakened_service.py" if weakened else "stub_service.py"
    env = {"XRAY_WEAKENED": weakened} if weakened else {}
    service = Service(root, command=(sys.executable, str(HERE / script)), **env)
    service.log = log  # what it says is wanted after the cut too
    log.unlink(missing_ok=True)
    os.sync()  # the folders were there before
    return service


def _until_the_cut(service: Service, disk: Disk, chance: random.Random) -> None:
    with _noise(disk.mounted / "noise"):
        sender = DurableSender(service.inbox, chance.randrange(1_000_000))
        sender.start()
        service.start()
        service.wait_until(lambda: any((service.root / "logs").glob("results-*.jsonl")))
        time.sleep(chance.uniform(0, 2.5))
        sender.power_goes.set()
        disk.cut()
        service.kill()
        sender.stop()
    disk.unmount()
    disk.mount()
    service.start("--once")
    assert service.ended() in (0, 3)
    filed = [path.read_bytes() for path in audit.filed(service.root).values()]
    arrived, last = list(sender.arrived), sender.in_flight
    if last is not None and filed.count(last) > arrived.count(last):
        arrived.append(last)  # it had arrived, but its sender did not come to know
    audit.check(service.root, arrived)
    audit.check_indexes(service.root)


@contextmanager
def _noise(path: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", NOISE, str(path)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=100, help="on each file system")
    parser.add_argument("--file-systems", nargs="+", choices=MAKE, default=list(MAKE))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weakened", choices=("normal", "fsync"), help="must find violations")
    options = parser.parse_args()
    if why := missing():
        sys.exit(f"not run: {why}")
    if "XRAY_OWN_MOUNTS" not in os.environ:  # where nobody else's processes hold our mounts
        alone = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe("unshare", alone, {**os.environ, "XRAY_OWN_MOUNTS": "1"})
    seen = 0
    for kind in options.file_systems:
        found = list(cuts(kind, options.cuts, options.seed, options.weakened))
        broken = [what for what in found if what]
        seen += len(broken)
        print(f"{kind}: {len(found)} power cuts, {len(broken)} with violations", flush=True)
        for what in broken[:3]:
            print("   ", what[:200])
    sys.exit(bool(seen) != bool(options.weakened))


if __name__ == "__main__":
    main()
