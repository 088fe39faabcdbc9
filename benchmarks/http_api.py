"""The HTTP API: images a second beside the folder, latency of /healthz, memory of `serve`.

    make bench-http                  # needs images in ../shared/images, or: ARGS="--images FOLDER"
    make bench-http ARGS=--long      # 10,000 files and 5 GB in one request, the network a stub

The same running service (DenseNet121, untrained) takes the same images through the folder and
through `POST /predict_batch`, in turns; what counts is the ratio. The folder's time begins when the
files are dropped and holds the settle time (0.2 s) and the quiet time (1 s); the request's time is
what its client waits for. Then /healthz is asked every 20 ms by a process of its own while a
request of 1,000 files is under way. (The file is not called `http.py`, which would hide Python's
own module of that name.)
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image

HOME = Path(__file__).parents[1]
sys.path.insert(0, str(HOME / "tests"))

from service import COMMAND  # noqa: E402
from webservice import STUB, WebService  # noqa: E402

DEFAULT_IMAGES = HOME.parent / "shared" / "images"
SUFFIXES = (".jpg", ".jpeg", ".png")
BOUNDARY = b"----------------xray-watcher"
PAUSE_S = 0.02
DIFFERENT = 40  # pictures of the long request; the others are the same bytes again

File = tuple[str, bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=DEFAULT_IMAGES)
    parser.add_argument("--count", type=int, default=160, help="images in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=1000, help="in the request beside /healthz")
    parser.add_argument("--long", action="store_true", help="10,000 files and 5 GB instead")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, {platform.platform()}")
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        if options.long:
            long_request(Path(folder), 10_000, 5_000_000_000)
            return
        files = sorted(p for p in options.images.glob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            sys.exit(f"{options.images} holds no images; name a folder with --images")
        images = [path.read_bytes() for path in files]
        short_requests(Path(folder), images, options)


# -- rates, latency, memory -----------------------------------------------------------------


def short_requests(folder: Path, images: Sequence[bytes], options: argparse.Namespace) -> None:
    service = started(folder, COMMAND)
    try:
        files = in_turn(images, options.count)
        by_folder(service, files[:32])  # warms up
        rates = [
            (by_folder(service, files), by_request(service, files)) for _ in range(options.rounds)
        ]
        idle_ms = asked_while(service, lambda: time.sleep(5))
        busy_ms = asked_while(
            service, lambda: by_request(service, in_turn(images, options.files), apart=True)
        )
        memory = peak_mb(service)
    finally:
        service.kill()
    show_rates(rates, options.count)
    print()
    print("| /healthz | answers | median | p99 | longest |")
    print("|---|---:|---:|---:|---:|")
    for name, found in (("idle", idle_ms), (f"{options.files} files under way", busy_ms)):
        middle, late = (found[int(share * len(found))] for share in (0.5, 0.99))
        print(f"| {name} | {len(found)} | {middle:.1f} ms | {late:.1f} ms | {found[-1]:.1f} ms |")
    print(f"\nmemory of `serve`, at most: {memory:.0f} MB")


def started(folder: Path, command: Sequence[str]) -> WebService:
    service = WebService(folder / "root", command)
    text = service.config.read_text().replace("settle_seconds = 0.5", "settle_seconds = 0.2")
    service.config.write_text(text.replace("quiet_seconds = 0.3", "quiet_seconds = 1.0"))
    try:
        service.start_both()
        service.wait_for(lambda: service.get("/api/v1/status")["model"] is not None, seconds=600)
    except BaseException:
        service.kill()
        raise
    return service


def in_turn(images: Sequence[bytes], count: int) -> list[File]:
    return [(f"{number:05d}.jpg", images[number % len(images)]) for number in range(count)]


def by_folder(service: WebService, files: Sequence[File]) -> float:
    """Images a second from the drop to the last line of the log."""
    staging = service.root / "staging"
    staging.mkdir()
    for name, content in files:
        (staging / name).write_bytes(content)
    before = service.get("/api/v1/status")["next_index"]
    began_s = time.monotonic()
    for path in staging.iterdir():
        path.rename(service.inbox / path.name)
    staging.rmdir()
    while service.get("/api/v1/status")["next_index"] < before + len(files):
        time.sleep(0.05)
    while service.get("/api/v1/status")["pending"]:
        time.sleep(0.01)
    return len(files) / (time.monotonic() - began_s)


def by_request(service: WebService, files: Sequence[File], *, apart: bool = False) -> float:
    """Images a second of one request, as its client sees it."""
    began_s = time.monotonic()
    if apart:
        process = get_context("fork").Process(target=post, args=(service.url, files))
        process.start()
        process.join()
        assert process.exitcode == 0
    else:
        post(service.url, files)
    return len(files) / (time.monotonic() - began_s)


def post(url: str, files: Sequence[File]) -> None:
    answer = requests.post(
        f"{url}/predict_batch", files=[("files", f) for f in files], timeout=3600
    )
    answer.raise_for_status()
    results = answer.json()["results"]
    assert [result["filename"] for result in results] == [name for name, _ in files]


def asked_while(service: WebService, work: Any) -> list[float]:
    """Ask for the health again and again while something is done; sorted milliseconds."""
    ours, theirs = get_context("fork").Pipe()
    asking = get_context("fork").Process(target=ask, args=(service.url, theirs))
    asking.start()
    work()
    ours.send(None)
    found: list[float] = ours.recv()
    asking.join()
    return sorted(found)


def ask(url: str, until: Connection) -> None:
    session = requests.Session()
    found = []
    while not until.poll():
        began_s = time.perf_counter()
        assert session.get(f"{url}/healthz", timeout=60).status_code in (200, 503)
        found.append((time.perf_counter() - began_s) * 1000)
        time.sleep(PAUSE_S)
    until.send(found)


def show_rates(rates: Sequence[tuple[float, float]], count: int) -> None:
    print(f"{count} images a round, {len(rates)} rounds, medians\n")
    print("| door | images/s | slowest and fastest round |")
    print("|---|---:|---:|")
    for name, found in zip(
        ("folder", "POST /predict_batch"), zip(*rates, strict=True), strict=True
    ):
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"| {name} | {statistics.median(found):.1f} | {spread} |")
    ratios = [request / folder for folder, request in rates]
    print(f"\nratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def peak_mb(service: WebService) -> float:
    assert service.web is not None
    status = Path(f"/proc/{service.web.pid}/status").read_text()
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(kilobytes) * 1024 / 1e6


# -- the long request -----------------------------------------------------------------------


def long_request(folder: Path, files: int, size: int) -> None:
    """One request of very many files: answered whole, in order, and memory stays flat."""
    pictures = [noise(size // files, seed) for seed in range(DIFFERENT)]
    service = started(folder, STUB)
    try:
        idle = peak_mb(service)
        body = LongBody(pictures, files)
        began_s = time.monotonic()
        answer = requests.post(
            f"{service.url}/predict_batch",
            data=body,
            headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"},
            timeout=7200,
        )
        answer.raise_for_status()
        seconds = time.monotonic() - began_s
        results = answer.json()["results"]
        assert [r["filename"] for r in results] == [f"{n:05d}.png" for n in range(files)]
        assert all(r["risk_level"] != "Rejected" for r in results)
        assert service.uploads() == []
        memory = peak_mb(service)
    finally:
        service.kill()
    print(
        f"{files} files, {len(body) / 1e9:.2f} GB in one request: {seconds:.0f} s, "
        f"all {len(results)} answered in order; memory of `serve`: {idle:.0f} MB before, "
        f"{memory:.0f} MB at most"
    )


class LongBody:
    """A multipart body that is made while it is sent."""

    def __init__(self, pictures: Sequence[bytes], files: int) -> None:
        self._pictures = pictures
        self._files = files

    def __len__(self) -> int:
        return sum(len(part) for part in self)

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._files):
            yield (
                b'--%s\r\nContent-Disposition: form-data; name="files"; '
                b'filename="%05d.png"\r\n\r\n' % (BOUNDARY, number)
            )
            yield self._pictures[number % len(self._pictures)]
            yield b"\r\n"
        yield b"--%s--\r\n" % BOUNDARY


def noise(size: int, seed: int) -> bytes:
    """A picture of about so many bytes, which nothing compresses."""
    side = int((size * 0.99) ** 0.5)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    made = BytesIO()
    Image.fromarray(pixels).save(made, "png", compress_level=0)
    return made.getvalue()


if __name__ == "__main__":
    main()
