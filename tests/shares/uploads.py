"""Uploads by a real SMB client to a real smbd, in all the ways that fool watchers.

    make shares                       # 200 of each kind; ARGS="--count 50 --kinds paused cut"
    make shares ARGS="--hasty"        # a service that does not look must be caught

A service watches what smbd exports. In the end an auditor of its own (`audit`) must find every file
once, whole, and nothing set aside: a file that was taken before it was complete would be found.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "storms")]

import numpy as np  # noqa: E402
import samba  # noqa: E402
from kill_storm import COMMAND  # noqa: E402
from PIL import Image  # noqa: E402
from samba import Client, Samba, set_mtime, set_size  # noqa: E402

import audit  # noqa: E402
from service import Service  # noqa: E402

PAUSE_S = 5.0
SETTLE_S = 0.5  # a quarter of what is shipped: it is not the waiting that is tried
AT_ONCE = 20  # clients
OLD = 131_000_000_000_000_000  # in the year 2016
WEAKENED = (sys.executable, str(HERE.parent / "storms" / "weakened_service.py"))


@dataclass(frozen=True)
class Upload:
    """One file to be put, by a client of its own."""

    client: Client
    path: str
    content: bytes
    chance: random.Random

    def parts(self, count: int) -> Iterator[bytes]:
        size = -(-len(self.content) // count)
        for start in range(0, len(self.content), size):
            yield self.content[start : start + size]


def _slow(upload: Upload) -> None:
    with upload.client.open(upload.path) as file:
        for part in upload.parts(8):
            file.write(part)
            time.sleep(upload.chance.uniform(0.1, 0.9))


def _paused(upload: Upload) -> None:
    with upload.client.open(upload.path) as file:
        for number, part in enumerate(upload.parts(2)):
            time.sleep(number * PAUSE_S)
            file.write(part)


def _size_first(upload: Upload) -> None:
    """As Explorer: the size, then the content, here with a pause, then the old time, then close."""
    with upload.client.open(upload.path) as file:
        set_size(file, len(upload.content))
        _paused_into(file, upload)
        set_mtime(file, OLD)


def _paused_into(file: samba.SMBRawIO, upload: Upload) -> None:
    for number, part in enumerate(upload.parts(2)):
        time.sleep(number * PAUSE_S)
        file.write(part)


def _cut(upload: Upload) -> None:
    """The client is gone in the middle; its user tries again some seconds later."""
    file = upload.client.open(upload.path)
    share = upload.chance.uniform(0.1, 0.95)
    if upload.chance.random() < 0.5:
        set_size(file, len(upload.content))
    file.write(upload.content[: int(len(upload.content) * share)])
    upload.client.cut(file)
    time.sleep(upload.chance.uniform(1, PAUSE_S + SETTLE_S))
    _at_once(upload)


def _renamed(upload: Upload) -> None:
    hidden = upload.path + ".part"
    with upload.client.open(hidden) as file:
        _paused_into(file, upload)
    upload.client.call("rename", hidden, upload.path)


def _at_once(upload: Upload) -> None:
    with upload.client.open(upload.path) as file:
        file.write(upload.content)


def _mtime_restored(upload: Upload) -> None:
    with upload.client.open(upload.path) as file:
        file.write(upload.content)
        time.sleep(upload.chance.uniform(0, PAUSE_S))
        set_mtime(file, OLD)


def _reopened(upload: Upload) -> None:
    """Each part is written and closed, so that nobody has the file open in the pauses."""
    for number, part in enumerate(upload.parts(3)):
        time.sleep(PAUSE_S * bool(number))
        with upload.client.open(upload.path, "ab" if number else "wb") as file:
            file.write(part)


KINDS: dict[str, Callable[[Upload], None]] = {
    "slow": _slow,
    "paused": _paused,
    "size-first": _size_first,
    "cut": _cut,
    "renamed": _renamed,
    "at-once": _at_once,
    "mtime-restored": _mtime_restored,
    "reopened": _reopened,
}


def picture(number: int) -> bytes:
    """A picture of some 100 kB that no other number has; every other one is a JPEG."""
    pixels = np.random.default_rng(number).integers(0, 256, (300, 300), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG" if number % 2 else "PNG", quality=95)
    return file.getvalue()


def put(server: Samba, kind: str, numbers: Sequence[int]) -> list[bytes]:
    """Put so many files of a kind, many at a time; returns their contents."""
    local, clients = threading.local(), []

    def begin() -> None:
        local.client = server.client()
        clients.append(local.client)

    def one(number: int) -> bytes:
        content = picture(number)
        name = f"{kind}-{number}.{'jpg' if number % 2 else 'png'}"
        upload = Upload(local.client, local.client.path(name), content, random.Random(number))
        KINDS[kind](upload)
        return content

    try:
        with ThreadPoolExecutor(min(AT_ONCE, len(numbers)), initializer=begin) as pool:
            return list(pool.map(one, numbers))
    finally:
        for client in clients:
            client.close()


@contextmanager
def watched(folder: Path, *, hasty: bool = False) -> Iterator[tuple[Service, Samba]]:
    """A service, and a Samba server that exports its folder."""
    weakened = {"XRAY_WEAKENED": "hasty"} if hasty else {}
    service = Service(
        folder / "root",
        command=WEAKENED if hasty else COMMAND,
        XRAY_WATCHER_INTAKE__SETTLE_SECONDS=str(SETTLE_S),
        XRAY_WATCHER_INTAKE__INCOMPLETE_AFTER_MINUTES="2",
        **weakened,
    )
    with samba.serving(folder / "samba", service.root) as server:
        service.start()
        try:
            service.wait_until(lambda: "watching" in service.log.read_text())
            yield service, server
        finally:
            service.kill()


def check(service: Service, arrived: Sequence[bytes]) -> None:
    """Wait until all is filed, then look whether each file was taken whole, and once.

    Raises:
        AssertionError: one was not.
    """
    service.wait_until(lambda: len(audit.filed(service.root)) >= len(arrived))
    assert service.stop() == 0
    audit.check(service.root, arrived)
    set_aside = [r for r in audit.jsonl_records(service.root) if "rejected" in r]
    assert not set_aside, f"{len(set_aside)} files were set aside"


def storm(kind: str, count: int, *, hasty: bool = False) -> float:
    """Put so many of one kind; returns the seconds it took.

    Raises:
        AssertionError: a file was taken too early, lost or doubled.
    """
    began_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="xray-watcher-smb-") as folder,
        watched(Path(folder), hasty=hasty) as (service, server),
    ):
        check(service, put(server, kind, range(count)))
    return time.monotonic() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--hasty", action="store_true", help="must find violations")
    options = parser.parse_args()
    if why := samba.missing():
        sys.exit(f"not run: {why}")
    broken = 0
    for kind in options.kinds:
        try:
            seconds = storm(kind, options.count, hasty=options.hasty)
        except AssertionError as error:
            broken += 1
            print(f"{kind}: VIOLATION: {audit.named(error)[:200]}", flush=True)
        else:
            print(f"{kind}: {options.count} uploads, {seconds:.0f} s: 0 violations", flush=True)
    sys.exit(bool(broken) != options.hasty)


if __name__ == "__main__":
    main()
