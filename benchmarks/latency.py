"""A lone image on an idle service, and the service that has nothing to do.

    python benchmarks/latency.py --count 200

From the end of settling to filed and logged, as the ledger has both times. `quiet_seconds` is 0
here: it is how long a batch waits for more, and a lone image would only wait for it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measuring import IMAGES, Service, cpu_seconds, pictures, processes_below

LONE = {"intake": "settle_seconds = 0.2", "batch": "quiet_seconds = 0.0"}


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds; `allowed` is 1.5 x (forward + decode) + 20 of the same images."""

    images: int
    p50: float
    p95: float
    p99: float
    forward: float
    decode: float
    allowed: float
    within: float


def lone_images(images: Path, count: int, model: str = "") -> Latency:
    """Hand the service one image after the other, each when the last is filed."""
    files = pictures(images)
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "root", options=LONE | {"model": model})
        process = service.start()
        try:
            service.wait_for(lambda: b"network ready" in service.log.read_bytes(), 120)
            for number in range(count + 1):
                _hand_over(service, files[number % len(files)], number)
                service.wait_for(lambda n=number: _filed(service) > n, 60)
        finally:
            process.terminate()
            process.wait(60)
        return _latency(service)


def _hand_over(service: Service, file: Path, number: int) -> None:
    part = service.inbox / f"{number:05d}.part"
    shutil.copyfile(file, part)
    part.rename(part.with_suffix(file.suffix))


def _filed(service: Service) -> int:
    return service.log.read_bytes().count(b'"filed"')


def _latency(service: Service) -> Latency:
    with sqlite3.connect(service.state / "ledger.sqlite3") as db:
        rows = db.execute(
            "SELECT (filed_us - settled_us) / 1000.0, jsonl FROM image JOIN record USING (idx)"
            " ORDER BY idx"
        ).fetchall()[1:]  # the first one starts the decoder
    db.close()
    took = sorted(ms for ms, _ in rows)
    steps = [json.loads(jsonl)["timings_ms"] for _, jsonl in rows]
    forward = statistics.median(step["infer"] for step in steps)
    decode = statistics.median(step["decode"] for step in steps)
    allowed = [1.5 * (step["infer"] + step["decode"]) + 20 for step in steps]
    within = sum(ms <= most for (ms, _), most in zip(rows, allowed, strict=True)) / len(rows)
    p50, p95, p99 = (
        took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.95, 0.99)
    )
    return Latency(len(rows), p50, p95, p99, forward, decode, statistics.median(allowed), within)


def idle_share(seconds: float, ignored: int = 1_000) -> float:
    """Share of one core that all processes use while the inbox holds files that are left alone."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "root")
        service.inbox.mkdir(parents=True)
        for number in range(ignored):
            (service.inbox / f"{number:04d}.tmp").touch()
        process = service.start()
        try:
            service.wait_for(lambda: b"network ready" in service.log.read_bytes(), 120)
            time.sleep(5)
            pids = processes_below(process.pid)
            before = cpu_seconds(pids)
            time.sleep(seconds)
            return (cpu_seconds(pids) - before) / seconds
        finally:
            process.terminate()
            process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    print(lone_images(options.images, options.count))
    print(f"idle: {idle_share(60):.2%} of one core")


if __name__ == "__main__":
    main()
