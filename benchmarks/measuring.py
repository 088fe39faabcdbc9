"""What the benchmarks share: the images, the service as a process, medians, the machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parents[2] / "shared" / "images"
PROGRAM = (sys.executable, "-m", "xray_watcher")
STUB = (sys.executable, str(Path(__file__).parents[1] / "tests" / "storms" / "stub_service.py"))
"""The same service with a network that costs nothing."""

CORES = len(os.sched_getaffinity(0))

_PAUSE_S = 0.2  # threads of the last way may still spin and wait for more
_SUFFIXES = (".jpg", ".jpeg", ".png")


def pictures(folder: Path) -> list[Path]:
    """The images that a folder holds, or the end of the program."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        sys.exit(f"{folder} holds no images; name a folder with --images")
    return files


def copies(files: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """As many files as wanted, the images in turn; each its own file."""
    folder.mkdir(parents=True)
    made = []
    for number in range(count):
        source = files[number % len(files)]
        made.append(folder / f"{number:05d}{source.suffix}")
        shutil.copyfile(source, made[-1])
    return made


def in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure every way once in each round, so that a busy moment hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, measure in ways.items():
            time.sleep(_PAUSE_S)
            found[name].append(measure())
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def ratio(found: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Median over the rounds of one way's figure by the other's."""
    pairs = zip(found[one], found[other], strict=True)
    return statistics.median(a / b for a, b in pairs)


def machine() -> str:
    """What was measured on, as a list in Markdown."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in file)}
    model = facts["model name"]
    wide = "with" if "avx512f" in facts["flags"].split() else "without"
    networks = ("torch", "torchvision", "torchxrayvision", "onnxruntime", "numpy")
    names = (*networks, "pillow", "kornia-rs", "simplejpeg")
    system = f"{platform.release()}, Python {platform.python_version()}"
    return "\n".join(
        [
            f"- {model} {wide} AVX-512, {CORES} cores, {system}",
            "- " + ", ".join(f"{name} {version(name)}" for name in names),
        ]
    )


@dataclass(frozen=True, slots=True)
class Service:
    """The service on folders of its own below `root`.

    Attributes:
        root: is made.
        program: the service, or the one with a network that costs nothing.
        options: lines of the configuration by table, such as {"model": 'engine = "onnx"'}.
    """

    root: Path
    program: Sequence[str] = PROGRAM
    options: Mapping[str, str] | None = None

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def log(self) -> Path:
        return self.root.parent / f"{self.root.name}.log"

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `run`; its log is begun anew."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [*self.program, "run", *self._options(), *arguments], stderr=log
            )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run another command to its end."""
        command = [*self.program, arguments[0], *self._options(), *arguments[1:]]
        return subprocess.run(command, capture_output=True, check=False)

    def _options(self) -> list[str]:
        config = self.root.parent / f"{self.root.name}.toml"
        tables = {"model": 'weights = "untrained"'} | dict(self.options or {})
        if "weights" not in tables["model"]:
            tables["model"] += '\nweights = "untrained"'
        lines = [
            f'root = "{self.root}"',
            f'state_dir = "{self.state}"',
            *(f"[{table}]\n{line}" for table, line in tables.items()),
        ]
        config.write_text("\n".join(lines) + "\n")
        return ["--config", str(config)]

    @property
    def state(self) -> Path:
        return self.root.parent / f"{self.root.name}-state"

    def events(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_for(self, is_so: Callable[[], bool], seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > until_s:
                sys.exit(f"this did not come about within {seconds:g} s; see {self.log}")
            time.sleep(0.005)


def at(event: Mapping[str, Any]) -> float:
    """When something was logged, in seconds."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def processes_below(pid: int) -> list[int]:
    """The process and all that it and its children have started."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def resident_mb(pids: Sequence[int]) -> float:
    """Memory of processes, what they share counted once in proportion (PSS), in megabytes."""
    kilobytes = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kilobytes += next(int(line.split()[1]) for line in text.splitlines() if "Pss:" in line)
    return kilobytes / 1024


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
