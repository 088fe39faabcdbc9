"""Whether image 100,000 costs what image 1,000 did, in time and in memory.

    python benchmarks/flat.py --count 100000

The service is the real one but for its network, which costs nothing. Small images are fed so that
the inbox always holds as many; then the service is started anew beside what it has done.
"""

from __future__ import annotations

import argparse
import io
import json
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from measuring import PROGRAM, STUB, Service, at, cpu_seconds, processes_below, resident_mb

SHARE = 1_000
"""Images at the beginning and at the end that are compared."""

IN_INBOX = 1_000
OPTIONS = {"intake": "settle_seconds = 0.5\nscan_seconds = 1.0", "batch": "quiet_seconds = 0.1"}


@dataclass(frozen=True, slots=True)
class Sample:
    """The service after so many images."""

    images: int
    at_s: float
    cpu_s: float
    resident_mb: float


@dataclass(frozen=True, slots=True)
class Flat:
    """What was found; times in seconds, memory in megabytes."""

    images: int
    first_ms: float
    last_ms: float
    first_cpu_ms: float
    last_cpu_ms: float
    growth_mb: float
    restart_s: float
    waiting: int


def measured(count: int, waiting: int) -> Flat:
    """Feed so many images, then start again with others waiting."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "root", STUB, OPTIONS)
        samples = list(_fed(service, count))
        first, last = _between(samples, SHARE, 2 * SHARE), _between(samples, count - SHARE, count)
        settled = [sample.resident_mb for sample in samples if sample.images >= 2 * SHARE]
        return Flat(
            images=count,
            first_ms=first[0],
            last_ms=last[0],
            first_cpu_ms=first[1],
            last_cpu_ms=last[1],
            growth_mb=statistics.median(settled[-9:]) - statistics.median(settled[:9]),
            restart_s=_restart(service, waiting),
            waiting=waiting,
        )


def _fed(service: Service, count: int) -> Iterator[Sample]:
    process = service.start()
    pictures = _pictures()
    given = filed = 0
    try:
        with _waiting_log(service).open("rb") as log:
            while filed < count:
                while given < min(count, filed + IN_INBOX):
                    _drop(service.inbox / f"{given:06d}.jpg", next(pictures))
                    given += 1
                for line in log.readlines():
                    event = json.loads(line)
                    filed += event["images"] if event["event"] == "filed" else 0
                    if event["event"] == "filed" and filed % 100 < event["images"]:
                        pids = processes_below(process.pid)
                        yield Sample(filed, at(event), cpu_seconds(pids), resident_mb(pids))
                time.sleep(0.02)
    finally:
        process.terminate()
        process.wait(60)


def _waiting_log(service: Service) -> Path:
    service.wait_for(lambda: b"watching" in service.log.read_bytes(), 60)
    return service.log


def _pictures() -> Iterator[bytes]:
    rng = np.random.default_rng(1)
    while True:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(file, "JPEG")
        yield file.getvalue()


def _drop(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.rename(path)


def _between(samples: list[Sample], first: int, last: int) -> tuple[float, float]:
    """Milliseconds an image on the clock and of processor time."""
    one = min(samples, key=lambda sample: abs(sample.images - first))
    two = min(samples, key=lambda sample: abs(sample.images - last))
    images = two.images - one.images
    return (two.at_s - one.at_s) * 1000 / images, (two.cpu_s - one.cpu_s) * 1000 / images


def _restart(service: Service, waiting: int) -> float:
    """Seconds from the start of the process to the first image that is filed, settling apart."""
    pictures = _pictures()
    for number in range(waiting):
        _drop(service.inbox / f"again{number:06d}.jpg", next(pictures))
    began_s = time.time()
    process = service.start()
    try:
        service.wait_for(lambda: b'"filed"' in service.log.read_bytes(), 120)
        filed = next(event for event in service.events() if event["event"] == "filed")
        return at(filed) - began_s - 0.5
    finally:
        process.terminate()
        process.wait(60)


# -- a large ledger -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Large:
    """A ledger of many rows; times in seconds, the start of the process included."""

    rows: int
    a_day: int
    status_s: float
    summary_s: float


def large_ledger(rows: int, a_day: int, rounds: int = 5) -> Large:
    """Time `status` and `summary` on a ledger of so many rows, the last day being today."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "root", STUB, OPTIONS)
        service.inbox.mkdir(parents=True)
        _drop(service.inbox / "one.jpg", next(_pictures()))
        service.start("--once").wait()
        _multiply(service.state / "ledger.sqlite3", rows, a_day)
        real = Service(service.root, PROGRAM, OPTIONS)
        return Large(
            rows,
            a_day,
            _seconds(lambda: real.command("status"), rounds),
            _seconds(lambda: real.command("summary", "--json"), rounds),
        )


def _multiply(ledger: Path, rows: int, a_day: int) -> None:
    """Repeat the one image of a ledger, on as many days as are needed."""
    with sqlite3.connect(ledger) as db:
        day = f"date('now', 'localtime', '-' || (({rows} - n) / {a_day}) || ' days')"
        db.execute(
            "INSERT INTO image (state, path, size, received_us, settled_us, day, attempts, sha256,"
            " idx, outcome, level, top_label, folder, filed_name, filed_us)"
            " SELECT state, path, size, received_us, settled_us, "
            f"{day}, attempts, randomblob(32), n, outcome, level, top_label, folder, filed_name,"
            " filed_us FROM image, numbers".replace("numbers", _NUMBERS),
            (rows,),
        )
        db.execute(f"INSERT INTO record SELECT n, log, jsonl, csv FROM record, {_NUMBERS}", (rows,))
        db.execute("UPDATE meta SET value = ? WHERE key = 'next_index'", (str(rows + 1),))
    db.close()


_NUMBERS = (
    "(WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)"
    " SELECT n FROM number)"
)


def _seconds(run: Callable[[], subprocess.CompletedProcess[bytes]], rounds: int) -> float:
    found = []
    for _ in range(rounds):
        began_s = time.monotonic()
        done = run()
        found.append(time.monotonic() - began_s)
        assert done.returncode in (0, 4), done.stderr.decode()
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    print(large_ledger(options.rows, 10_000))
    print(measured(options.count, options.waiting))


if __name__ == "__main__":
    main()
