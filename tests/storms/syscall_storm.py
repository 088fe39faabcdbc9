"""Every system call that changes something: killed at it, or made to fail at it, once each.

    make syscalls                     # kill, EIO, ENOSPC and EACCES at every call; needs strace
    make syscalls ARGS="--faults kill --two-file-systems --recovery"

A run files a good picture, a duplicate, a text, a damaged picture and another good one. For the
n-th call of each kind strace kills the process or makes the call fail; a second run without strace
takes up what is left, and the auditor checks the promises. Counting goes on until a run has no
n-th call; strace counts for each thread by itself. `openat` is tried where it may make a file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from arrivals import picture_number  # noqa: E402

import audit  # noqa: E402
from service import Service, environment  # noqa: E402

COMMAND = (sys.executable, str(HERE / "stub_service.py"))
CALLS = (
    "renameat2", "rename", "unlink", "unlinkat", "link", "linkat", "mkdir", "fsync", "fdatasync",
    "ftruncate", "pwrite64", "write", "openat", "fchmod", "fchown", "utimensat", "copy_file_range",
    "sendfile",
)  # fmt: skip
FAULTS = {
    "kill": "signal=SIGKILL",
    "EIO": "error=EIO",
    "ENOSPC": "error=ENOSPC",
    "EACCES": "error=EACCES",
}
OTHER_FILE_SYSTEM = Path("/dev/shm")


@dataclass(frozen=True)
class Point:
    """One call of a run at which something goes wrong."""

    call: str
    number: int
    fault: str


WITHIN_A_RUN = Point("fsync", 20, "kill")  # images are claimed, decided and partly filed then
QUICKER = {
    "XRAY_WATCHER_INTAKE__SETTLE_SECONDS": "0.2",
    "XRAY_WATCHER_BATCH__QUIET_SECONDS": "0.1",
    "XRAY_WATCHER_MODEL__DECODERS": "1",
}
LANES = 3  # runs side by side; they mostly wait
MOST = 400  # of one kind of call; a run has far fewer

PICTURE = picture_number(1)
DAMAGED = PICTURE[:100] + b"damage" + PICTURE[106:]
ARRIVED = (PICTURE, PICTURE, b"notes, no picture", DAMAGED, picture_number(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=list(CALLS))
    parser.add_argument("--two-file-systems", action="store_true")
    parser.add_argument("--recovery", action="store_true", help="while a kill is recovered from")
    options = parser.parse_args()
    if not shutil.which("strace"):
        sys.exit("not run: strace is not installed (apt-get install strace)")
    for fault in options.faults:
        tried = storm(options.calls, fault, two=options.two_file_systems, recovery=options.recovery)
        counts = ", ".join(f"{call} {count}" for call, count in tried.items() if count)
        where = "in two file systems" if options.two_file_systems else "in one file system"
        where += ", during recovery" if options.recovery else ""
        print(f"{fault} {where}: {sum(tried.values())} points ({counts}): 0 violations", flush=True)


def storm(
    calls: Sequence[str], fault: str, *, two: bool = False, recovery: bool = False
) -> dict[str, int]:
    """Let every call of these kinds go wrong once; returns how many there were of each.

    Raises:
        AssertionError: a promise was broken.
    """

    def of_one(call: str) -> int:
        points = _all_of(call, fault, two=two, recovery=recovery)
        print(f"  {fault} at {call}: {points} points", flush=True)
        return points

    with ThreadPoolExecutor(LANES) as threads:
        return dict(zip(calls, threads.map(of_one, calls), strict=True))


def _all_of(call: str, fault: str, *, two: bool, recovery: bool) -> int:
    for number in range(1, MOST):
        with _folders(two=two) as (root, results):
            if not _is_hit(Point(call, number, fault), root, results, recovery=recovery):
                return number - 1
    raise AssertionError(f"more than {MOST} calls of {call}")


class _folders:  # noqa: N801 - used as a function
    """A folder of the inbox, and one of the results, which may lie on another file system."""

    def __init__(self, *, two: bool) -> None:
        self._two = two

    def __enter__(self) -> tuple[Path, Path]:
        self._root = Path(tempfile.mkdtemp(prefix="xray-watcher-storm-"))
        self._results = self._root / "root"
        if self._two:
            self._results = Path(tempfile.mkdtemp(prefix="storm-", dir=OTHER_FILE_SYSTEM))
        return self._root / "root", self._results

    def __exit__(self, *_exc: object) -> None:
        shutil.rmtree(self._root)
        shutil.rmtree(self._results, ignore_errors=True)


def _is_hit(point: Point, root: Path, results: Path, *, recovery: bool) -> bool:
    """Run into one point, take up what is left, check; returns whether the point was met."""
    service = _service(root, results)
    if recovery:
        _run(service, WITHIN_A_RUN)
    hit = _run(service, point, _created(root, results) if point.call == "openat" else ())
    service.start("--once")
    code = service.ended()
    try:
        assert code in (0, 3), f"the run after it ended with {code}"
        audit.check(results, ARRIVED, inbox=service.inbox)
        audit.check_indexes(results)
        audit.check_nothing_else(results, service.inbox)
    except AssertionError as error:
        raise AssertionError(f"{point}: {error}\n{service.log.read_text()}") from error
    return hit


def _service(root: Path, results: Path) -> Service:
    """A service whose inbox holds the five files."""
    env = dict(QUICKER)
    if results != root:
        env |= {
            "XRAY_WATCHER_INTAKE__CLASSIFIED": str(results / "classified_images"),
            "XRAY_WATCHER_INTAKE__REJECTED": str(results / "rejected"),
            "XRAY_WATCHER_INTAKE__LOGS": str(results / "logs"),
        }
    service = Service(root, command=COMMAND, **env)
    for number, content in enumerate(ARRIVED):
        (service.inbox / f"{number}.png").write_bytes(content)
    return service


def _created(root: Path, results: Path) -> list[str]:
    """The files that a run may make."""
    with_state = f"{root}-state"
    return [
        path.format(root=root, state=with_state, results=results)
        for path in _made_in_a_run(two=root != results)
    ]


@cache
def _made_in_a_run(*, two: bool) -> frozenset[str]:
    with _folders(two=two) as (root, results):
        service = _service(root, results)
        _traced(service, "openat", [])
        lines = (root.parent / "trace").read_text(errors="replace").splitlines()
        paths = {line.split('"')[1] for line in lines if "O_CREAT" in line}
        ours = [path for path in paths if path.startswith(("/tmp/", str(results)))]
        return frozenset(
            path.replace(f"{root}-state", "{state}")
            .replace(str(root), "{root}")
            .replace(str(results), "{results}")
            for path in ours
        )


def _run(service: Service, point: Point, paths: Sequence[str] = ()) -> bool:
    """One run under strace; returns whether the point was met."""
    inject = f"inject={point.call}:{FAULTS[point.fault]}:when={point.number}"
    only = [option for path in paths for option in ("-P", path)]
    ended = _traced(service, point.call, ["-e", inject, *only])
    killed = ended.returncode == -signal.SIGKILL  # strace ends as what it watched has ended
    trace = service.root.parent / "trace"
    return killed or "(INJECTED)" in trace.read_text(errors="replace")


def _traced(
    service: Service, call: str, options: Sequence[str]
) -> subprocess.CompletedProcess[bytes]:
    trace = service.root.parent / "trace"
    # With it strace is quicker, but does not count the calls that a signal waits for.
    quicker = [] if any("signal=SIG" in option for option in options) else ["--seccomp-bpf"]
    command = [
        "strace", "-q", "-f", *quicker, "-o", str(trace), "-e", f"trace={call}",
        "-e", "signal=none", *options, *COMMAND, "run", "--once", "--config", str(service.config),
    ]  # fmt: skip
    with service.log.open("ab") as log:
        return subprocess.run(
            command,
            stderr=log,
            stdout=log,
            env=environment(**service.env),
            timeout=120,
            check=False,
        )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
