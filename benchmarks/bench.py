"""Measure everything and write `docs/evidence/performance.md`. Let nothing else run meanwhile.

    make bench                      # all of it: about an hour
    make bench ARGS="--only forward end_to_end"
    make bench ARGS="--page docs/evidence/performance-avx2.md"   # of another kind of processor

Each section is kept in the page under its heading, so that one can be measured anew alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import end_to_end
import flat
import forward
import latency
import start
from measuring import IMAGES, copies, in_turns, machine, pictures
from xray_watcher.model.processor import has_bfloat16

PAGE = Path(__file__).parents[1] / "docs" / "evidence" / "performance.md"
ROUNDS = 5
_HEAD = """# Performance

`make bench` measured this. The code is in `benchmarks/`, and each file says what it does. Ways that
are compared took turns in the same run. A figure is the median of its rounds. On another machine
expect the ratios to hold, not the times. The weights are random numbers in the true architecture.
They cost the same as trained ones.

**No GPU was measured: there was none.** Tests run the code for CUDA on a device that is not real.
Expect the batch size (`[batch] max_size`) to matter there.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--only", nargs="*", choices=list(_SECTIONS), default=list(_SECTIONS))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    for name in options.only:
        heading, section = _SECTIONS[name]
        write(options.page, heading, f"{_when()}\n\n{section(options.images)}")


def _when() -> str:
    return f"Measured {datetime.now(UTC):%Y-%m-%d} on\n\n{machine()}"


def write(path: Path, heading: str, text: str) -> None:
    """Put a section into the page, in place of what it said before."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    kept = dict(_split(page))
    kept[heading] = text.strip()
    sections = [f"## {title}\n\n{kept[title]}" for title, _ in _SECTIONS.values() if title in kept]
    head = page.partition("\n## ")[0] or _HEAD  # what somebody wrote there stays
    path.write_text("\n\n".join([head.strip(), *sections]) + "\n", encoding="utf-8")


def _split(page: str) -> list[tuple[str, str]]:
    parts = [part.partition("\n") for part in page.split("\n## ")[1:]]
    return [(heading, text.strip()) for heading, _, text in parts]


# -- the sections -------------------------------------------------------------------------


def _forward(_images: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return forward.table(in_turns(forward.every_way(Path(folder)), 2 * ROUNDS + 1))


def _end_to_end(images: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        files = copies(pictures(images), 176, Path(folder) / "images")
        found = in_turns(end_to_end.ways(files, Path(folder)), ROUNDS)
    return f"176 files in a round.\n\n{end_to_end.table(found)}"


def _flat(_images: Path) -> str:
    found = flat.measured(100_000, 10_000)
    return "\n".join(
        [
            "The whole service, but for a network that costs nothing.",
            "",
            "| of so many images | first 1,000 | last 1,000 | ratio |",
            "|---|---:|---:|---:|",
            _compared("ms an image", found.first_ms, found.last_ms),
            _compared("ms of processor time an image", found.first_cpu_ms, found.last_cpu_ms),
            "",
            f"Over {found.images:,} images memory grew by {found.growth_mb:.1f} MB.",
            f"A new start found {found.waiting:,} images waiting. It filed the first of them",
            f"{found.restart_s:.1f} s after the start of the process and their settling.",
        ]
    )


def _compared(what: str, first: float, last: float) -> str:
    return f"| {what} | {first:.2f} | {last:.2f} | {last / first:.2f} |"


def _ledger(_images: Path) -> str:
    lines = [
        "Seconds from the start of the command to its end, Python's own start included.",
        "",
        "| rows | on each day | `status` | `summary` of a day |",
        "|---:|---:|---:|---:|",
    ]
    for a_day in (10_000, 100_000):
        found = flat.large_ledger(1_000_000, a_day)
        lines.append(
            f"| {found.rows:,} | {a_day:,} | {found.status_s:.2f} | {found.summary_s:.2f} |"
        )
    return "\n".join(lines)


def _latency(images: Path) -> str:
    lines = [
        "Milliseconds from the end of settling until the image is filed and logged. One image came",
        "after the other on an idle service with `quiet_seconds = 0`: no image waits for company.",
        "Allowed are 1.5 x (forward + decode) + 20 of the same image.",
        "",
        "| engine | images | p50 | p95 | p99 | forward | decode | allowed | images within |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, model in (("default", ""), ("onnx", 'engine = "onnx"')):
        found = latency.lone_images(images, 200, model)
        lines.append(
            f"| {name} | {found.images} | {found.p50:.1f} | {found.p95:.1f} | {found.p99:.1f} | "
            f"{found.forward:.1f} | {found.decode:.1f} | {found.allowed:.1f} | {found.within:.0%} |"
        )
    share = latency.idle_share(60)
    return "\n".join(
        [*lines, "", f"Idle, with 1,000 ignored files in the inbox: {share:.2%} of one core."]
    )


def _start(images: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        found = in_turns(start.ways(Path(folder)), ROUNDS)
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    models = {"default": "", "bfloat16": 'precision = "bfloat16"', "onnx": 'engine = "onnx"'}
    if not has_bfloat16():
        del models["bfloat16"]
    memory = {name: start.resident(images, model) for name, model in models.items()}
    return "\n".join(
        [
            "| from the start of the process | seconds |",
            "|---|---:|",
            *(f"| {name} | {seconds:.2f} |" for name, seconds in medians.items()),
            "",
            "Resident memory of all processes after 64 images (what they share counted once): "
            + ", ".join(f"{name} {mb:.0f} MB" for name, mb in memory.items())
            + ".",
        ]
    )


_SECTIONS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "forward": ("The forward pass", _forward),
    "end_to_end": ("From the inbox to the log", _end_to_end),
    "start": ("Start and memory", _start),
    "latency": ("A lone image, and nothing at all", _latency),
    "ledger": ("A large ledger", _ledger),
    "flat": ("A hundred thousand images", _flat),
}


if __name__ == "__main__":
    main()
