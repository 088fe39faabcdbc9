"""Our scores beside TorchXRayVision's own, from the file to the top label.

    make parity                     # prints the tables and writes docs/evidence/parity.md

Theirs: `load_image`, `XRayCenterCrop`, `XRayResizer(224)`, `DenseNet.forward`, with weights taken
from the library's own cache. Ours: the service's decoder and engine with the same checkpoint. The
weights are seeded random ones: the published files are not needed to compare two ways of computing.
Every set has its own labels and operating points. Images: those of ../shared/images where they are
there, and one drawn chest in every file form that arrives.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xray_watcher.core.calibration import scores
from xray_watcher.core.catalogue import OUTPUTS, PUBLISHED
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode
from xray_watcher.model.engine import load_engine
from xray_watcher.model.network import library
from xray_watcher.phantom.drawing import draw, frame, to_uint8

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests" / folder) for folder in ("intake", "model")]

import pictures  # noqa: E402 - the tests' own pictures in every file form
from checkpoints import library_network, save_legacy  # noqa: E402

REPORT = HERE.parent / "docs" / "evidence" / "parity.md"
MAX_INPUT_DIFFERENCE = 2.5  # mean, of a range of 2048
SMALL_MARGIN = 0.01  # between the reference's first and second score

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One file, and the network input `[1, 224, 224]` that the library makes of its picture."""

    name: str
    content: bytes
    theirs: Pixels

    @property
    def ours(self) -> Pixels:
        """The network input that the service makes of it."""
        return decode(self.content, DecodeLimits()).pixels


@dataclass(frozen=True)
class Row:
    """How far one file's input and scores differ; `flips` are changed top labels by margin."""

    name: str
    input_mean: float
    input_max: float
    score_max: float
    flips: tuple[float, ...]


def main() -> None:
    rows = compared(cases())
    print(table(rows))
    REPORT.write_text(PAGE.format(table=table(rows), sets=len(PUBLISHED)), encoding="utf-8")
    if any(not is_kept(row) for row in rows):
        sys.exit("The promise is not kept.")


def is_kept(row: Row) -> bool:
    """Whether a file's row is within what is promised."""
    return row.input_mean <= MAX_INPUT_DIFFERENCE and all(
        margin < SMALL_MARGIN for margin in row.flips
    )


# -- what is compared ---------------------------------------------------------------------


def cases() -> list[Case]:
    """The real images, then one drawn chest in every form."""
    return [*_real_cases(), *_drawn_cases()]


def _real_cases() -> Iterator[Case]:
    for path in pictures.REAL_IMAGES:
        stored = library().utils.load_image(str(path))
        yield Case(path.name, path.read_bytes(), _resized(stored))


def _drawn_cases() -> Iterator[Case]:
    drawing = frame(draw(np.random.default_rng(5), "Edema", side=512), 640, 512)
    grey = to_uint8(drawing)
    theirs = _resized(library().utils.normalize(grey.astype(np.float32), 255)[np.newaxis])
    for name, content in pictures.lossless(grey).items():
        yield Case(f"drawn, PNG, {name}", content, theirs)
    for name, content in pictures.lossy(grey).items():
        yield Case(f"drawn, JPEG, {name}", content, theirs)
    for as_jpeg in (True, False):
        kind = "JPEG" if as_jpeg else "PNG"
        content = pictures.turned(grey, 6, as_jpeg=as_jpeg)
        yield Case(f"drawn, {kind}, turned by EXIF", content, theirs)
    yield _large_case()


def _large_case() -> Case:
    """A film of five megapixels, which the service decodes at half its size."""
    film = to_uint8(frame(draw(np.random.default_rng(6), None, side=2000), 2000, 2500))
    content = pictures.jpeg(Image.fromarray(film))
    stored = np.asarray(Image.open(io.BytesIO(content)), np.float32)
    theirs = _resized(library().utils.normalize(stored, 255)[np.newaxis])
    return Case("drawn, JPEG of 2000 x 2500", content, theirs)


def _resized(stored: NDArray[Any]) -> Pixels:
    with contextlib.redirect_stdout(io.StringIO()):
        resizer = library().datasets.XRayResizer(224)
    cropped = library().datasets.XRayCenterCrop()(stored)
    return np.asarray(resizer(cropped), np.float32)


# -- the comparison -----------------------------------------------------------------------


def compared(found: Sequence[Case]) -> list[Row]:
    """Both ways for every file and every set of weights."""
    ours = np.stack([case.ours for case in found])
    theirs = np.stack([case.theirs for case in found])
    pairs = [_both_ways(weights.name, ours, theirs) for weights in PUBLISHED]
    rows = []
    for number, case in enumerate(found):
        difference = np.abs(ours[number] - theirs[number])
        score_max, flips = 0.0, []
        for mine, reference in pairs:
            score_max = max(score_max, float(np.abs(mine[number] - reference[number]).max()))
            second, first = np.sort(reference[number])[-2:]
            if mine[number].argmax() != reference[number].argmax():
                flips.append(float(first - second))
        rows.append(
            Row(
                case.name,
                float(difference.mean()),
                float(difference.max()),
                score_max,
                tuple(flips),
            )
        )
    return rows


def _both_ways(name: str, ours: Pixels, theirs: Pixels) -> tuple[NDArray[Any], NDArray[Any]]:
    """Our scores and the library's `[N, labels]` with the same checkpoint."""
    with tempfile.TemporaryDirectory() as cache_folder:
        url = library().models.model_urls[name]["weights_url"]
        os.symlink(_checkpoint(), os.path.join(cache_folder, os.path.basename(url)))
        network = library().models.DenseNet(weights=name, cache_dir=cache_folder)
    engine = load_engine(
        name, str(_checkpoint()), "", kind="torch", threads=0, device="cpu", precision="float32"
    )
    slots = [OUTPUTS.index(label) for label in engine.labels]
    with torch.inference_mode():
        reference = network(torch.from_numpy(theirs)).numpy()[:, slots]
    raw = engine.classify(ours)
    mine = [scores(engine.labels, row.tolist(), engine.operating_points).calibrated for row in raw]
    return np.array(mine), reference


@cache
def _checkpoint() -> Path:
    """Seeded weights in the library's own file form; removed with the machine's other scratch."""
    folder = Path(tempfile.mkdtemp(prefix="xray-watcher-parity-"))
    return save_legacy(library_network(), folder / "weights.pt")


# -- the report ---------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| file | input, mean difference | input, largest | score, largest | top labels changed |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        changed = ", ".join(f"1 (margin {margin:.4f})" for margin in row.flips) or "0"
        lines.append(
            f"| {row.name} | {row.input_mean:.3f} | {row.input_max:.1f} "
            f"| {row.score_max:.4f} | {changed} |"
        )
    return "\n".join(lines)


PAGE = """\
# Parity with TorchXRayVision

This page compares our scores with the library's own (`load_image`, `XRayCenterCrop`,
`XRayResizer(224)`, `DenseNet.forward`). Both use the same seeded checkpoint. It covers all
{sets} `densenet121-res224-*` sets of labels and operating points. `make parity` writes it.

- On the same 224 x 224 input the scores are equal to 1e-5. A test holds this for every set and
  both file forms.
- From the file, the mean difference of the network's input must be at most 2.5 of its range of
  2048.
- No top label may change unless the library's own margin is under 0.01.

Inputs are in -1024..1024. "Score, largest" is the largest difference of any calibrated score of
any set. Each file form of the drawn chest is compared with the library's input for the drawing
itself. The differences of its JPEGs are therefore those of the compression. The service decodes a
JPEG at a half, a quarter or an eighth of its size only when its shorter side is 1792 pixels or
more. The last row is such a JPEG.

{table}
"""

if __name__ == "__main__":
    main()
