"""The kill storm: SIGKILL at random moments, again and again, while files arrive.

    make storm                        # 2,000 kills; ARGS="--kills 200 --seed 5" for another
    make storm ARGS="--failing 5"     # beside that 5 % of the files fail, at random calls
    make sigterm                      # 200 requests to stop: exit code 0, and how long that takes

The service is real but for its network (`stub_service`). At the end it runs until nothing is left,
and an auditor of its own (`audit`) reads folders and logs: every file that arrived must be there
once, once in each log, under one index; lines must be whole; levels must agree; the indexes must be
0 to N-1 without a gap. With `--failing` a file may have been decided anew, so there may be gaps
then; the causes are gone before the last run, and every file must be filed. Several storms go on
side by side, each with a root of its own, since a storm mostly waits.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import faults  # noqa: E402
from arrivals import Arrivals  # noqa: E402
from faults import CALLS, Faults  # noqa: E402

import audit  # noqa: E402
from service import Service  # noqa: E402

COMMAND = (sys.executable, str(HERE / "stub_service.py"))
QUICKER = {"XRAY_WATCHER_INTAKE__SETTLE_SECONDS": "0.2", "XRAY_WATCHER_BATCH__QUIET_SECONDS": "0.1"}
LONGEST_LIFE_S = 1.2  # several batches are filed in it
LANES = 3

BAD = "-bad"  # in the name of a file that fails
ERRORS = (
    "EIO",
    "ESTALE",
    "EUCLEAN",
    "EINVAL",
    "ENOKEY",
    "ETIMEDOUT",
    "EACCES",
    "EPERM",
    "EBUSY",
    "EAGAIN",
)
"""Not ENOENT: of a claimed file that the kernel says is gone a record is written."""
CAUSES = 4  # at a time; each life has others
CALLS_OF_A_CAUSE = 4
CALLS_HIT_PERCENT = 40  # so that a try also gets further


@dataclass(frozen=True)
class Storm:
    """What a storm was: its kills, the files that arrived, and the seconds it took.

    `stops_s` are the seconds that the service took to end, if it was asked politely; `failures`
    the calls that failed beside the kills.
    """

    kills: int
    files: int
    rejected: int
    seconds: float
    stops_s: tuple[float, ...]
    failures: int = 0


class FailingArrivals(Arrivals):
    """Arrivals of which some have a mark in their names: calls on them fail."""

    def __init__(self, inbox: Path, seed: int, percent: int) -> None:
        super().__init__(inbox, seed)
        self._percent = percent

    def _name(self) -> str:
        stem, suffix = os.path.splitext(super()._name())
        is_bad = self._random.random() * 100 < self._percent and not stem.endswith("IM0001")
        return f"{stem}{BAD if is_bad else ''}{suffix}"


class Causes:
    """Why calls on the marked files fail in a life: a few kinds of calls, an error each."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        folder.mkdir()
        self._faults, self._chance = Faults(folder), chance
        self.env = self._faults.env
        self._rules = [
            self._faults.add("open", "EIO", mark=BAD, percent=CALLS_HIT_PERCENT)
            for _ in range(CAUSES)
        ]

    @property
    def hits(self) -> int:
        """How many calls have failed."""
        return sum(self._faults.hits(rule) for rule in self._rules)

    def stir(self) -> None:
        """Let other calls fail, with other errors."""
        for rule in self._rules:
            calls = " ".join(self._chance.sample(CALLS, CALLS_OF_A_CAUSE))
            self._faults.change(rule, calls, self._chance.choice(ERRORS))

    def end(self) -> None:
        """Let nothing fail any more."""
        for rule in self._rules:
            self._faults.lift(rule)


def storms(
    folder: Path, kills: int, seed: int, *, lanes: int, politely: bool = False, failing: int = 0
) -> Sequence[Storm]:
    """Run storms side by side that have so many kills in all.

    Args:
        folder: for their roots.
        kills: in all of them.
        seed: of their chances.
        lanes: how many.
        politely: ask it to stop in place of a kill.
        failing: per cent of the files on which calls fail.

    Raises:
        AssertionError: a promise was broken.
    """
    shares = [kills // lanes + (lane < kills % lanes) for lane in range(lanes)]

    def run(lane: int) -> Storm:
        root = folder / f"root-{lane}"
        return storm(root, shares[lane], seed + lane, politely=politely, failing=failing)

    with ThreadPoolExecutor(lanes) as threads:
        return list(threads.map(run, range(lanes)))


def storm(root: Path, kills: int, seed: int, *, politely: bool = False, failing: int = 0) -> Storm:
    """Run one storm of SIGKILL or, politely, of SIGTERM.

    Raises:
        AssertionError: a promise was broken.
    """
    began_s = time.monotonic()
    chance = random.Random(seed)
    causes = Causes(root.parent / f"{root.name}-causes", chance) if failing else None
    service = Service(root, command=COMMAND, **QUICKER, **(causes.env if causes else {}))
    arrivals = (
        FailingArrivals(service.inbox, seed, failing) if failing else Arrivals(service.inbox, seed)
    )
    arrivals.start()
    stops_s: list[float] = []
    try:
        for _ in range(kills):
            if causes:
                causes.stir()
            logged = service.log.stat().st_size if service.log.exists() else 0
            service.start()
            if chance.random() < 0.75:  # else it is struck while it starts and recovers
                wait_until_watching(service, logged)
            elif politely:
                service.wait_until(lambda: service.hears(signal.SIGTERM))
            time.sleep(chance.uniform(0, LONGEST_LIFE_S))
            if politely:
                began_to_stop_s = time.monotonic()
                assert service.stop(signal.SIGTERM) == 0
                stops_s.append(time.monotonic() - began_to_stop_s)
            else:
                service.kill()
    finally:
        arrivals.stop()
        service.kill()
    if causes:
        assert causes.hits, "no call has failed"
        causes.end()
    run_to_the_end(service)
    audit.check(root, arrivals.arrived)
    audit.check_nothing_else(root)
    if not causes:
        audit.check_indexes(root)
    records = audit.jsonl_records(root)
    rejected = sum("rejected" in record for record in records)
    seconds, failures = time.monotonic() - began_s, causes.hits if causes else 0
    return Storm(kills, len(records), rejected, seconds, tuple(sorted(stops_s)), failures)


def wait_until_watching(service: Service, logged: int) -> None:
    """Wait until the life that began when the log had so many bytes has reached its loop."""

    def watches() -> bool:
        with service.log.open("rb") as log:
            log.seek(logged)
            return b'"watching"' in log.read()

    service.wait_until(watches)


def run_to_the_end(service: Service) -> None:
    """Run until everything that lies there is filed; unfinished files need their time."""
    service.start()
    service.wait_until(lambda: not left(service))
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
    parser.add_argument("--lanes", type=int, default=LANES, help="storms side by side")
    parser.add_argument("--politely", action="store_true", help="SIGTERM in place of SIGKILL")
    parser.add_argument("--failing", type=int, default=0, help="per cent of the files that fail")
    options = parser.parse_args()
    if why_not := faults.missing() if options.failing else None:
        sys.exit(f"not run: {why_not}")
    with tempfile.TemporaryDirectory(prefix="xray-watcher-storm-") as folder:
        try:
            found = storms(
                Path(folder),
                options.kills,
                options.seed,
                lanes=options.lanes,
                politely=options.politely,
                failing=options.failing,
            )
        except subprocess.SubprocessError as error:
            sys.exit(f"the storm could not be run: {error}")
    if stops_s := sorted(second for one in found for second in one.stops_s):
        middle, late = (stops_s[int(share * len(stops_s))] for share in (0.5, 0.99))
        print(f"ended in: median {middle:.2f} s, 99 % {late:.2f} s, longest {stops_s[-1]:.2f} s")
    kills, files, rejected = (
        sum(getattr(one, what) for one in found) for what in ("kills", "files", "rejected")
    )
    minutes = max(one.seconds for one in found) / 60
    signals = "SIGTERMs" if options.politely else "kills"
    if options.failing:
        failures = sum(one.failures for one in found)
        print(f"{failures} calls failed, on {options.failing} % of the files")
    print(
        f"{kills} {signals} in {len(found)} storms, {files} files ({rejected} rejected), "
        f"{minutes:.1f} minutes: 0 violations"
    )


if __name__ == "__main__":
    main()
