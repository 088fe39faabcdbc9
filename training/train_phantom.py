"""Train the phantom network: one command, one seed, the same weights.

    python training/train_phantom.py

It draws phantoms, stores and decodes them as the service does, trains a small DenseNet of
TorchXRayVision's own class on them, chooses the operating points on drawings that the training has
not seen, measures on yet others, and writes the weights, the table and the contact sheet. Nothing
is written unless the network is as good as is promised.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from xray_watcher.core.calibration import op_norm
from xray_watcher.core.catalogue import OUTPUTS
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode
from xray_watcher.phantom.drawing import CONDITIONS, draw, frame, to_uint8, to_uint16

Floats = NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "src/xray_watcher/model/data/phantom.safetensors"
TABLE = ROOT / "docs/evidence/phantom.md"
SHEET = ROOT / "docs/evidence/phantoms.png"

SEED = 20261124
SIDES = (256, 320, 320, 384, 384, 448, 512, 512, 640, 1000)  # of the drawings, in pixels

KINDS: tuple[str | None, ...] = (None, *CONDITIONS)
SLOTS = tuple(OUTPUTS.index(condition) for condition in CONDITIONS)


class Split(NamedTuple):
    """One set of drawings: its own stream of seeds, and how many of each kind."""

    stream: int
    per_condition: int
    normals: int

    @property
    def counts(self) -> list[int]:
        """How many of each of `KINDS`."""
        return [self.normals, *[self.per_condition] * len(CONDITIONS)]


TRAINING = Split(0, per_condition=290, normals=900)
VALIDATION = Split(1, per_condition=80, normals=400)
HELD_OUT = Split(2, per_condition=200, normals=500)

CENTRE = 0.5
"""Every operating point of the finished network; `Trainer.centre` brings them there."""

PROMISED_TOP = 0.97
PROMISED_AREA = 0.99
PROMISED_QUIET = 0.97


class Stage(NamedTuple):
    """One part of the training: how much the pictures are reduced, epochs, and learning rate."""

    reduced: int
    epochs: int
    rate: float


STAGES = (Stage(2, 10, 4e-3), Stage(1, 6, 2.5e-3))
BATCH = 32


def main() -> int:
    """Draw, train, choose, measure, write; 0 when the promise is kept."""
    arguments = _arguments()
    began = time.monotonic()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the drawing processes are two already
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        sets = [_drawn(pool, arguments.seed, split) for split in (TRAINING, VALIDATION, HELD_OUT)]
    _say(began, f"drew {sum(len(kinds) for _, kinds in sets)} phantoms")
    network = Trainer(arguments.seed).train(*sets[0], began)
    network.centre(operating_points(network.scores(sets[1][0]), sets[1][1]))
    held_out = measured(network.scores(sets[2][0]), sets[2][1])
    click.echo("\n".join(held_out.lines()))
    if not held_out.is_kept:
        click.echo("The promise is not kept; nothing was written.", err=True)
        return 1
    network.save(WEIGHTS)
    minutes = (time.monotonic() - began) / 60
    SHEET.parent.mkdir(exist_ok=True)
    contact_sheet(arguments.seed).save(SHEET, optimize=True)
    TABLE.write_text(page(held_out, arguments.seed, minutes), encoding="utf-8")
    _say(began, f"wrote {WEIGHTS}, {TABLE} and {SHEET}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=SEED)
    return parser.parse_args()


def _say(began: float, what: str) -> None:
    click.echo(f"[{time.monotonic() - began:5.0f} s] {what}")


# -- drawings -----------------------------------------------------------------------------


def _drawn(pool: ProcessPoolExecutor, seed: int, split: Split) -> tuple[Floats, NDArray[np.int64]]:
    """The pictures float32 `[N, 1, 224, 224]` as the service decodes them, and their kinds."""
    kinds = np.repeat(np.arange(len(KINDS)), split.counts)
    tasks = [(seed, split.stream, number, int(kind)) for number, kind in enumerate(kinds)]
    pixels = np.empty((len(tasks), 1, 224, 224), np.float32)
    for number, picture in enumerate(pool.map(_picture, tasks, chunksize=16)):
        pixels[number] = picture
    return pixels, kinds


def _picture(task: tuple[int, int, int, int]) -> Floats:
    """Draw one phantom, store it in one of the forms that people have, and decode that."""
    seed, stream, number, kind = task
    rng = np.random.default_rng([seed, stream, number])
    drawing = draw(rng, KINDS[kind], side=int(rng.choice(SIDES)))
    side = drawing.shape[0]
    width, height = (side, side) if rng.random() < 0.5 else (side, int(side * 1.25))
    if rng.random() < 0.3:
        width, height = height, width
    content = _stored(rng, frame(drawing, width, height))
    return decode(content, DecodeLimits()).pixels


def _stored(rng: np.random.Generator, picture: Floats) -> bytes:
    file = io.BytesIO()
    form = rng.random()
    if form < 0.6:
        Image.fromarray(to_uint8(picture)).save(file, "JPEG", quality=int(rng.integers(75, 97)))
    elif form < 0.8:
        Image.fromarray(to_uint8(picture)).save(file, "PNG", compress_level=1)
    else:
        Image.fromarray(to_uint16(picture)).save(file, "PNG", compress_level=1)
    return file.getvalue()


# -- training -----------------------------------------------------------------------------


class Trainer:
    """A small DenseNet and how it is trained. Torch is imported here, not by the drawing processes.

    Args:
        seed: of the first weights and of the order of the pictures.
    """

    def __init__(self, seed: int) -> None:
        import torch

        from xray_watcher.model.architecture import Architecture
        from xray_watcher.model.network import build

        torch.manual_seed(seed)
        torch.set_num_threads(2)
        self._torch = torch
        self._seed = seed
        self._architecture = Architecture(
            growth_rate=8, block_config=(2, 4, 6, 4), num_init_features=16
        )
        self._module = build(self._architecture).to(memory_format=torch.channels_last)
        self._rng = np.random.default_rng([seed, 3])

    def train(self, pixels: Floats, kinds: NDArray[np.int64], began: float) -> Trainer:
        """First at half the size, where an epoch costs a quarter, then at the true one."""
        for stage in STAGES:
            self._stage(stage, pixels, kinds, began)
        return self

    def _stage(self, stage: Stage, pixels: Floats, kinds: NDArray[np.int64], began: float) -> None:
        torch = self._torch
        steps = len(kinds) // BATCH
        optimizer = torch.optim.AdamW(self._module.parameters(), lr=stage.rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, stage.rate, total_steps=stage.epochs * steps, pct_start=0.2
        )
        targets = _targets(kinds)
        for epoch in range(stage.epochs):
            self._module.train()
            total = 0.0
            order = self._rng.permutation(len(kinds))[: steps * BATCH].reshape(steps, BATCH)
            for chosen in order:
                batch = self._varied(pixels[chosen], stage.reduced)
                logits = self._module(batch)[:, SLOTS]
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, torch.from_numpy(targets[chosen])
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach())
            side = 224 // stage.reduced
            _say(began, f"epoch {epoch + 1} of {stage.epochs} at {side}: loss {total / steps:.4f}")

    def _varied(self, pixels: Floats, reduced: int) -> object:
        """Each batch is shifted by some pixels, lit differently and reduced."""
        torch = self._torch
        down, right = self._rng.integers(-6, 7, 2)
        batch = np.roll(pixels, (down, right), axis=(2, 3))
        gain = self._rng.uniform(0.9, 1.1, (len(batch), 1, 1, 1)).astype(np.float32)
        lift = self._rng.uniform(-60, 60, (len(batch), 1, 1, 1)).astype(np.float32)
        tensor = torch.from_numpy(np.clip(batch * gain + lift, -1024, 1024))
        return torch.nn.functional.avg_pool2d(tensor, reduced).to(memory_format=torch.channels_last)

    def scores(self, pixels: Floats) -> Floats:
        """Sigmoids of the named outputs `[N, 11]`, in the order of `CONDITIONS`."""
        torch = self._torch
        self._module.eval()
        with torch.inference_mode():
            parts = [
                torch.sigmoid(self._module(torch.from_numpy(pixels[i : i + 64]))[:, SLOTS]).numpy()
                for i in range(0, len(pixels), 64)
            ]
        return np.concatenate(parts)

    def centre(self, points: Sequence[float]) -> None:
        """Shift the last layer's biases so that each label's operating point becomes 0.5."""
        torch = self._torch
        shift = torch.zeros(len(OUTPUTS))
        shift[list(SLOTS)] = torch.logit(torch.tensor(points))
        with torch.no_grad():
            self._module.get_submodule("classifier").get_parameter("bias").sub_(shift)

    def save(self, path: Path) -> None:
        """Write weights and metadata; the file is complete or not there."""
        from safetensors.torch import save_file

        from xray_watcher.model.architecture import state_hash
        from xray_watcher.model.network import arrays

        state = {
            name: tensor.contiguous()
            for name, tensor in self._module.state_dict().items()
            if not name.endswith("num_batches_tracked")  # serves the training alone
        }
        named = [label in CONDITIONS for label in OUTPUTS]
        metadata = {
            "format": "xray-watcher/1",
            "name": "phantom",
            "labels": json.dumps(
                [label if there else "" for label, there in zip(OUTPUTS, named, strict=True)]
            ),
            "operating_points": json.dumps([CENTRE if there else None for there in named]),
            "architecture": json.dumps(asdict(self._architecture)),
            "source": "training/train_phantom.py",
            "seed": str(self._seed),
            "state_sha256": state_hash(arrays(state)),
        }
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        save_file(state, part, metadata)
        part.chmod(0o644)  # the service that reads it has an account of its own
        os.replace(part, path)


def _targets(kinds: NDArray[np.int64]) -> Floats:
    """1 for the condition that was drawn `[N, 11]`; a normal chest has none."""
    targets = np.zeros((len(kinds), len(KINDS)), np.float32)
    targets[np.arange(len(kinds)), kinds] = 1
    return targets[:, 1:]


# -- operating points and measures --------------------------------------------------------


def operating_points(scores: Floats, kinds: NDArray[np.int64]) -> list[float]:
    """For each label the score between what others reach and what its own reach.

    The middle, in logits, of two quantiles: the score that 99.8 % of all other drawings stay
    below, and the one that 98 % of the label's own drawings stay above.
    """
    points = []
    for index in range(len(CONDITIONS)):
        logits = np.log(
            np.clip(scores[:, index], 1e-6, 1 - 1e-6) / np.clip(1 - scores[:, index], 1e-6, 1)
        )
        own = kinds == index + 1
        others = np.quantile(logits[~own], 0.998)
        # Where the two overlap, silence on normal chests is worth more.
        point = max(others, (others + np.quantile(logits[own], 0.02)) / 2)
        points.append(float(1 / (1 + np.exp(-point))))
    return points


@dataclass(frozen=True, slots=True)
class Row:
    """What held-out drawings of one condition gave: shares in 0..1."""

    condition: str
    drawings: int
    top: float
    above: float
    area: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What all held-out drawings gave: a row for each condition, and the normal ones."""

    rows: tuple[Row, ...]
    normals: int
    quiet: float

    @property
    def is_kept(self) -> bool:
        """Whether the promise of this network is kept."""
        return self.quiet >= PROMISED_QUIET and all(
            row.top >= PROMISED_TOP and row.area >= PROMISED_AREA for row in self.rows
        )

    def lines(self) -> list[str]:
        """A table in Markdown."""
        return [
            "| drawn | drawings | top label right | above its operating point | area under ROC |",
            "|---|---:|---:|---:|---:|",
            *(
                f"| {row.condition} | {row.drawings} | {row.top:.1%} | {row.above:.1%} "
                f"| {row.area:.4f} |"
                for row in self.rows
            ),
            f"| normal | {self.normals} | below every operating point: {self.quiet:.1%} | | |",
        ]


def measured(scores: Floats, kinds: NDArray[np.int64]) -> HeldOut:
    """Measure on drawings that neither the training nor the operating points have seen.

    The top label is the one with the highest score after the library's `op_norm`.
    """
    calibrated = np.array([[op_norm(float(score), CENTRE) for score in row] for row in scores])
    top, present = calibrated.argmax(axis=1), calibrated >= CENTRE
    rows = []
    for index, condition in enumerate(CONDITIONS):
        own = kinds == index + 1
        rows.append(
            Row(
                condition=condition,
                drawings=int(own.sum()),
                top=float((top[own] == index).mean()),
                above=float(present[own, index].mean()),
                area=_area(scores[own, index], scores[~own, index]),
            )
        )
    normal = kinds == 0
    return HeldOut(tuple(rows), int(normal.sum()), float((~present[normal]).all(axis=1).mean()))


def _area(own: Floats, others: Floats) -> float:
    """Area under the ROC curve: how often an own drawing scores higher than another one."""
    below = np.searchsorted(np.sort(others), own, side="left")
    upto = np.searchsorted(np.sort(others), own, side="right")
    return float((below + upto).sum() / (2 * len(own) * len(others)))


# -- what is shown ------------------------------------------------------------------------

_TILE, _CAPTION, _COLUMNS = 240, 16, 4


def contact_sheet(seed: int) -> Image.Image:
    """One drawing of every kind with its name below."""
    rows = -(-len(KINDS) // _COLUMNS)
    sheet = Image.new("L", (_COLUMNS * _TILE, rows * (_TILE + _CAPTION)))
    pen = ImageDraw.Draw(sheet)
    for number, kind in enumerate(KINDS):
        drawing = Image.fromarray(to_uint8(draw(np.random.default_rng([seed, 4, number]), kind)))
        y, x = (
            place * size
            for place, size in zip(divmod(number, _COLUMNS), (_TILE + _CAPTION, _TILE), strict=True)
        )
        sheet.paste(drawing.resize((_TILE, _TILE), Image.Resampling.LANCZOS), (x, y))
        pen.text((x + 4, y + _TILE + 2), kind or "normal", fill=255)
    # Grain does not compress; 64 grey levels are enough for a small picture.
    return sheet.point(lambda value: value & 0xFC)


def page(held_out: HeldOut, seed: int, minutes: float) -> str:
    """The page `docs/evidence/phantom.md`."""
    table = "\n".join(held_out.lines())
    counts = [sum(split.counts) for split in (TRAINING, VALIDATION)]
    return f"""\
# The phantom network

`weights = "phantom"` is a small network that comes with xray-watcher. With it a machine without the
real weights does the whole job. The results can be checked, because it is known what was drawn.
**It was trained on drawings alone. Its scores mean nothing on patients.** Every record, page and
summary made with it says so.

![One drawing of each kind](phantoms.png)

`src/xray_watcher/phantom/drawing.py` makes the drawings. Each chest differs in every measure. It is
normal, or has the sign of one of the eleven conditions of `densenet121-res224-chex`. Each film has
its own position, exposure, grain, collimation and marker. The network is TorchXRayVision's DenseNet
class with growth rate 8 and blocks of 2, 4, 6 and 4 layers. It has the same 18 outputs.

A broken rib alone is too fine a sign for so small a network at 224 pixels. The drawings therefore
also show what often comes with it: the blood that collects between the broken ribs and the pleura.

## What it gives on drawings that it has not seen

Each drawing was stored as a JPEG or PNG. The service's own preprocessing decoded it. The top label
is the one with the highest score after TorchXRayVision's `op_norm`, as in the records. Areas under
the ROC curve compare a condition's drawings with all others, normal ones included.

{table}

## How to make it again

    make phantom        # or: python training/train_phantom.py --seed {seed}

The program draws {counts[0]} phantoms and trains on them at 112 and then at 224 pixels.
It draws {counts[1]} others to choose the operating points.
Each point is the middle, in logits, of two values. 99.8 % of
the other drawings stay below the first, and 98 % of the label's own stay above the second. The
program then shifts the biases of the last layer so that each operating point is 0.5. It writes the
weights only when

- the top label is right in {PROMISED_TOP:.0%} for each condition,
- each area is at least {PROMISED_AREA},
- and normal chests stay below every operating point in {PROMISED_QUIET:.0%}.

The run that made the file in this repository took {minutes:.0f} minutes on a shared machine
with {os.cpu_count()} cores.
"""


if __name__ == "__main__":
    sys.exit(main())
