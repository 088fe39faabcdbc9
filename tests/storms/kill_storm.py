"""The kill storm: SIGKILL at random moments, again and again, while files arrive.

    make storm                        # 2,000 kills; ARGS="--kills 200 --seed 5" for another

The service is real but for its network (`stub_service`). At the end it runs until nothing is left,
and an auditor of its own (`audit`) reads folders and logs: every file that arrived must be there
once, once in each log, under one index; lines must be whole; levels must agree.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from arrivals import Arrivals  # noqa: E402

import audit  # noqa: E402
from service import Service  # noqa: E402

COMMAND = (sys.executable, str(HERE / "stub_service.py"))


@dataclass(frozen=True)
class Storm:
    """What a storm was: its kills, the files that arrived, and the seconds it took."""

    kills: int
    files: int
    rejected: int
    seconds: float


def storm(root: Path, kills: int, seed: int) -> Storm:
    """Run one storm.

    Raises:
        AssertionError: a promise was broken.
    """
    began_s = time.monotonic()
    chance = random.Random(seed)
    service = Service(root, command=COMMAND)
    arrivals = Arrivals(service.inbox, seed)
    arrivals.start()
    try:
        for _ in range(kills):
            service.start()
            time.sleep(chance.uniform(0.3, 2.2))
            service.kill()
    finally:
        arrivals.stop()
        service.kill()
    run_to_the_end(service)
    audit.check(root, arrivals.arrived)
    records = audit.jsonl_records(root)
    assert [r["index"] for r in records] == list(range(len(records))), "indexes have gaps"
    rejected = sum("rejected" in record for record in records)
    return Storm(kills, len(records), rejected, time.monotonic() - began_s)


def run_to_the_end(service: Service) -> None:
    """Run until everything that lies there is filed; unfinished files need their time."""
    service.start()
    service.wait_until(lambda: not left(service), seconds=300)
    assert service.stop(signal.SIGTERM) == 0


def left(service: Service) -> list[Path]:
    """What still lies in the inbox or the work folder."""
    work = service.root / ".xray-watcher"
    waiting = [path for path in service.inbox.rglob("*.png") if path.is_file()]
    return waiting + [path for path in work.iterdir() if path.is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = storm(Path(folder) / "root", options.kills, options.seed)
        except subprocess.SubprocessError as error:
            sys.exit(f"the storm could not be run: {error}")
    print(
        f"{found.kills} kills, {found.files} files ({found.rejected} rejected), "
        f"{found.seconds / 60:.1f} minutes: 0 violations"
    )


if __name__ == "__main__":
    main()
