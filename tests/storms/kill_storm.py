"""The kill storm: SIGKILL at random moments, again and again, while files arrive.

    make storm                        # 2,000 kills; ARGS="--kills 200 --seed 5" for another
    make storm ARGS="--kills 200 --politely"      # SIGTERM: exit code 0, and how long that takes

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
    """What a storm was: its kills, the files that arrived, and the seconds it took.

    `stops_s` are the seconds that the service took to end, if it was asked politely.
    """

    kills: int
    files: int
    rejected: int
    seconds: float
    stops_s: tuple[float, ...]


def storm(root: Path, kills: int, seed: int, *, politely: bool = False) -> Storm:
    """Run one storm of SIGKILL or, politely, of SIGTERM.

    Raises:
        AssertionError: a promise was broken.
    """
    began_s = time.monotonic()
    chance = random.Random(seed)
    service = Service(root, command=COMMAND)
    arrivals = Arrivals(service.inbox, seed)
    arrivals.start()
    stops_s: list[float] = []
    try:
        for _ in range(kills):
            service.start()
            time.sleep(chance.uniform(0.3, 2.2))
            if politely:
                stops_s.append(stopped_s(service))
            else:
                service.kill()
    finally:
        arrivals.stop()
        service.kill()
    run_to_the_end(service)
    audit.check(root, arrivals.arrived)
    records = audit.jsonl_records(root)
    assert [r["index"] for r in records] == list(range(len(records))), "indexes have gaps"
    rejected = sum("rejected" in record for record in records)
    return Storm(kills, len(records), rejected, time.monotonic() - began_s, tuple(sorted(stops_s)))


def stopped_s(service: Service) -> float:
    """Seconds that the service takes to end in order."""
    service.wait_until(lambda: service.log.exists() and "watching" in last_life(service))
    began_s = time.monotonic()
    assert service.stop(signal.SIGTERM) == 0
    return time.monotonic() - began_s


def last_life(service: Service) -> str:
    """What the service has logged since its last end."""
    return service.log.read_text().rpartition('"stopped"')[2]


def run_to_the_end(service: Service) -> None:
    """Run until everything that lies there is filed; unfinished files need their time."""
    service.start()
    service.wait_until(lambda: not left(service), seconds=300)
    assert service.stop(signal.SIGTERM) == 0


def left(service: Service) -> list[Path]:
    """What still lies in the inbox or the work folder."""
    work = service.root / ".xray-watcher"
    waiting = [path for path in service.inbox.rglob("*.png") if path.is_file()]
    return waiting + [path for path in work.iterdir() if path.name.isdecimal()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--politely", action="store_true", help="SIGTERM in place of SIGKILL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = storm(
                Path(folder) / "root", options.kills, options.seed, politely=options.politely
            )
        except subprocess.SubprocessError as error:
            sys.exit(f"the storm could not be run: {error}")
    if found.stops_s:
        middle, late = (found.stops_s[int(share * len(found.stops_s))] for share in (0.5, 0.99))
        longest = found.stops_s[-1]
        print(f"ended in: median {middle:.2f} s, 99 % {late:.2f} s, longest {longest:.2f} s")
    print(
        f"{found.kills} kills, {found.files} files ({found.rejected} rejected), "
        f"{found.seconds / 60:.1f} minutes: 0 violations"
    )


if __name__ == "__main__":
    main()
