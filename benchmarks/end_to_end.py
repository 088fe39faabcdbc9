"""Images a second: the whole service on a backlog, beside TorchXRayVision's own way.

    make bench                       # needs images in ../shared/images, or: ARGS="--images FOLDER"

Both ways see the same images, the same (untrained) weights and the same cores in one run, in
turns; what counts is the ratio. Theirs is the way of the library's examples: `load_image`,
`XRayCenterCrop`, `XRayResizer(224)`, the model, one image after the other, a CSV at the end.
Ours is `xray-watcher run --once`: scan, settle, claim, hash, decode, score, commit, file, log.
Both rates are of work under way: start-up (importing torch, building the network) and the settle
time are shown and left out, since a service pays them once.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

DEFAULT_IMAGES = Path(__file__).parents[2] / "shared" / "images"
HEAD_START = 2  # batches
SUFFIXES = (".jpg", ".jpeg", ".png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=DEFAULT_IMAGES)
    parser.add_argument("--count", type=int, default=176, help="images in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    files = sorted(p for p in options.images.glob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        sys.exit(f"{options.images} holds no images; name a folder with --images")
    with tempfile.TemporaryDirectory() as folder:
        rows = copies(files, options.count, Path(folder) / "images")
        theirs = Theirs()
        rates = [
            (theirs.rate(rows, Path(folder) / "theirs.csv"), ours(rows, Path(folder) / str(number)))
            for number in range(options.rounds)
        ]
    show(rates, options.count, len(files))


def copies(files: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """As many files as wanted, the images in turn; each its own file."""
    folder.mkdir()
    made = []
    for number in range(count):
        source = files[number % len(files)]
        made.append(folder / f"{number:05d}{source.suffix}")
        shutil.copyfile(source, made[-1])
    return made


class Theirs:
    """TorchXRayVision's own way, one image after the other."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415 - only this half needs it

        from xray_watcher.model.network import library, untrained  # noqa: PLC0415

        self._torch = torch
        self._library = library()
        self._model = untrained().module
        self._labels = self._library.datasets.default_pathologies

    def rate(self, files: Sequence[Path], table: Path) -> float:
        """Images a second, the first image (which warms up) apart."""
        torch, xrv = self._torch, self._library
        crop = xrv.datasets.XRayCenterCrop()
        with contextlib.redirect_stdout(io.StringIO()):
            resize = xrv.datasets.XRayResizer(224)
            self._one(files[0], crop, resize)
            began_s = time.monotonic()
            rows = [self._one(path, crop, resize) for path in files]
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *self._labels])
            writer.writerows(rows)
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
        return len(files) / (time.monotonic() - began_s)

    def _one(self, path: Path, crop: object, resize: object) -> list[object]:
        torch, xrv = self._torch, self._library
        pixels = resize(crop(xrv.utils.load_image(str(path))))  # type: ignore[operator]
        with torch.no_grad():
            scores = self._model(torch.from_numpy(pixels)[None]).sigmoid()[0]
        return [path.name, *scores.tolist()]


def ours(files: Sequence[Path], root: Path) -> tuple[float, float]:
    """Images a second of `run --once` once it is under way; and all its seconds.

    The first batches are decoded while the network is loaded, so they do not count.
    """
    inbox = root / "inbox"
    inbox.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, inbox / path.name)
    began_s = time.monotonic()
    command = [sys.executable, "-m", "xray_watcher", "run", "--once", "--weights", "untrained"]
    command += ["--root", str(root), "--state-dir", str(root / "state")]
    subprocess.run(command, check=True, stderr=(root / "log").open("w"))
    seconds = time.monotonic() - began_s
    (log,) = (root / "logs").glob("*.jsonl")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(records) == len(files)
    events = [json.loads(line) for line in (root / "log").read_text().splitlines()]
    filed = [event for event in events if event["event"] == "filed"]
    later = sum(event["images"] for event in filed[HEAD_START:])
    return later / (at(filed[-1]) - at(filed[HEAD_START - 1])), seconds


def at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def show(rates: Sequence[tuple[float, tuple[float, float]]], count: int, different: int) -> None:
    theirs = [one for one, _ in rates]
    ours_only = [two[0] for _, two in rates]
    print(f"{count} images ({different} different), {len(rates)} rounds, medians;")
    print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, {platform.platform()}")
    print()
    print("| way | images/s | of which slowest and fastest round |")
    print("|---|---:|---:|")
    for name, found in (("TorchXRayVision's own", theirs), ("xray-watcher run --once", ours_only)):
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"| {name} | {statistics.median(found):.1f} | {spread} |")
    ratios = [two[0] / one for one, two in rates]
    print()
    print(f"ratio: {statistics.median(ratios):.2f} (rounds {min(ratios):.2f} to {max(ratios):.2f})")
    print(f"whole process, start-up and settling included: {rates[-1][1][1]:.1f} s")


if __name__ == "__main__":
    main()
