"""Trains the phantom network on drawn chests and writes its weights and its report.

    make phantom

One seed, one command, about a quarter of an hour on two cores. Everything is drawn: nothing of
a patient goes in, and nothing that comes out means anything on patients.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from xray_watcher.core.calibration import op_norm
from xray_watcher.core.catalogue import OUTPUTS
from xray_watcher.intake.images import HALF_RANGE, DecodeLimits, decode
from xray_watcher.model.network import Architecture, build
from xray_watcher.model.phantom import CONDITIONS, draw, to_uint8
from xray_watcher.phantoms import FORMS, NORMAL, Form, encoded

ARCHITECTURE = Architecture(growth_rate=8, block_config=(2, 4, 6, 4), num_init_features=16)
SLOTS = [OUTPUTS.index(condition) for condition in CONDITIONS]

TRAINING_SEED, VALIDATION_SEED, HELD_OUT_SEED = 1, 2, 3
NORMAL_SHARE = 0.2
TRAINING_FORMS = (
    Form(".png", 8, 256, 256),
    Form(".jpg", 8, 320, 320),
    Form(".png", 16, 224, 224),
    Form(".jpeg", 24, 288, 288),
)

HERE = os.path.dirname(os.path.abspath(__file__))
WEIGHTS = os.path.join(HERE, "../src/xray_watcher/model/data/phantom.safetensors")
REPORT = os.path.join(HERE, "../docs/phantom.md")
SHEET = os.path.join(HERE, "../docs/phantoms.jpg")


@dataclass(frozen=True)
class Stage:
    """A part of the training: at which side, in pixels, for how many epochs, how fast."""

    side: int
    epochs: int
    rate: float


STAGES = (Stage(112, 10, 4e-3), Stage(224, 3, 1.5e-3))
BATCH = 32


@dataclass(frozen=True)
class Drawings:
    """Network inputs `[N, 1, 224, 224]` as float16 in -1..1, and which condition each shows."""

    pixels: NDArray[np.float16]
    drawn: NDArray[np.int64]  # position in CONDITIONS; -1 is a normal chest

    @property
    def targets(self) -> NDArray[np.float32]:
        """`[N, conditions]`, 1 where the condition was drawn."""
        return (self.drawn[:, None] == np.arange(len(CONDITIONS))).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drawings", type=int, default=8000, help="for training")
    parser.add_argument("--per-condition", type=int, default=200, help="for the held-out test")
    options = parser.parse_args()
    began_s = time.monotonic()
    training = drawings(mixed(options.drawings), TRAINING_SEED, TRAINING_FORMS)
    print(f"drawn {len(training.drawn)} in {time.monotonic() - began_s:.0f} s", flush=True)
    network = trained(training)
    validation = drawings(mixed(1200), VALIDATION_SEED, TRAINING_FORMS)
    points = operating_points(logits(network, validation), validation)
    save(network, points)
    minutes = (time.monotonic() - began_s) / 60
    print(f"trained in {minutes:.1f} minutes; testing", flush=True)
    held_out = [-1] * (3 * options.per_condition)
    held_out += [c for c in range(len(CONDITIONS)) for _ in range(options.per_condition)]
    unseen = drawings(held_out, HELD_OUT_SEED, FORMS)
    report(logits(network, unseen), unseen, points, minutes, len(training.drawn))


# -- drawing ------------------------------------------------------------------------------


def mixed(count: int) -> list[int]:
    """What to draw: normal chests and every condition in turn."""
    normal = round(count * NORMAL_SHARE)
    return [-1] * normal + [number % len(CONDITIONS) for number in range(count - normal)]


def drawings(kinds: Sequence[int], seed: int, forms: Sequence[Form]) -> Drawings:
    """Draw, store and read again as the service does; one process for each core."""
    jobs = [(seed, number, kind, forms) for number, kind in enumerate(kinds)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pixels = pool.starmap(_drawn, jobs, chunksize=50)
    return Drawings(np.stack(pixels), np.array(kinds))


def _drawn(seed: int, number: int, kind: int, forms: Sequence[Form]) -> NDArray[np.float16]:
    rng = np.random.default_rng((seed, number))
    condition = None if kind < 0 else CONDITIONS[kind]
    content = encoded(rng, condition, forms[int(rng.integers(len(forms)))])
    return (decode(content, DecodeLimits()).pixels / HALF_RANGE).astype(np.float16)


# -- training -----------------------------------------------------------------------------


def trained(training: Drawings) -> nn.Module:
    """Train on small pictures first, which is quick, and then at the size of the service."""
    torch.manual_seed(TRAINING_SEED)
    network = build(ARCHITECTURE).to(memory_format=torch.channels_last).train()
    rng = np.random.default_rng(TRAINING_SEED)
    for stage in STAGES:
        steps = stage.epochs * (len(training.drawn) // BATCH)
        optimiser = torch.optim.AdamW(network.parameters(), stage.rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, stage.rate, steps)
        for epoch in range(stage.epochs):
            losses = []
            for pixels, targets in batches(training, stage.side, rng):
                loss = functional.binary_cross_entropy_with_logits(
                    network(pixels)[:, SLOTS], targets
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
            print(f"{stage.side} px, epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)
    return network.eval()


def batches(
    data: Drawings, side: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled batches, with brightness and contrast varied once more."""
    order = rng.permutation(len(data.drawn))
    targets = data.targets
    for start in range(0, len(order) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        pixels = torch.from_numpy(data.pixels[chosen].astype(np.float32))
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (BATCH, 1, 1, 1)).astype(np.float32))
        offset = torch.from_numpy(rng.uniform(-0.1, 0.1, (BATCH, 1, 1, 1)).astype(np.float32))
        pixels = (pixels * gain + offset) * HALF_RANGE
        if side != pixels.shape[-1]:
            pixels = functional.interpolate(pixels, side, mode="area")
        yield (
            pixels.to(memory_format=torch.channels_last),
            torch.from_numpy(targets[chosen]),
        )


def logits(network: nn.Module, data: Drawings) -> NDArray[np.float64]:
    """`[N, conditions]`, through the network at the service's size."""
    rows = []
    with torch.inference_mode():
        for start in range(0, len(data.drawn), BATCH):
            pixels = data.pixels[start : start + BATCH].astype(np.float32) * np.float32(HALF_RANGE)
            rows.append(network(torch.from_numpy(pixels))[:, SLOTS].double().numpy())
    return np.concatenate(rows)


def operating_points(found: NDArray[np.float64], data: Drawings) -> list[float]:
    """For each condition the score half-way, as a logit, between what has it and what has not.

    Half-way between the highest but a few (99.8 %) of those without and the lowest but a few
    (2 %) of those with it.
    """
    points = []
    for number in range(len(CONDITIONS)):
        own = data.drawn == number
        low, high = np.quantile(found[~own, number], 0.998), np.quantile(found[own, number], 0.02)
        points.append(round(float(1 / (1 + np.exp(-(low + high) / 2))), 6))
    return points


def save(network: nn.Module, points: Sequence[float]) -> None:
    """Write the weights with what they mean."""
    by_slot = dict(zip(SLOTS, points, strict=True))
    metadata = {
        "format": "xray-watcher/1",
        "name": "phantom",
        "labels": json.dumps([OUTPUTS[i] if i in by_slot else "" for i in range(len(OUTPUTS))]),
        "operating_points": json.dumps([by_slot.get(i) for i in range(len(OUTPUTS))]),
        "architecture": json.dumps(asdict(ARCHITECTURE)),
        "source": "training/train_phantom.py",
        "seed": str(TRAINING_SEED),
    }
    os.makedirs(os.path.dirname(WEIGHTS), exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, WEIGHTS, metadata)


# -- the report ---------------------------------------------------------------------------


def report(
    found: NDArray[np.float64],
    data: Drawings,
    points: Sequence[float],
    minutes: float,
    drawn: int,
) -> None:
    """Print the table of the held-out test and write it with its picture to the docs."""
    raw = 1 / (1 + np.exp(-found))
    scores = np.array(
        [[op_norm(float(p), t) for p, t in zip(row, points, strict=True)] for row in raw]
    )
    top = scores.argmax(axis=1)
    normal = data.drawn < 0
    lines = [
        "| Condition | drawings | top label right | area under ROC | operating point |",
        "|---|---:|---:|---:|---:|",
    ]
    for number, condition in enumerate(CONDITIONS):
        own = data.drawn == number
        right = float((top[own] == number).mean())
        area = area_under_roc(found[own, number], found[~own, number])
        lines.append(
            f"| {condition} | {own.sum()} | {right:.1%} | {area:.4f} | {points[number]:.3f} |"
        )
    quiet = float((scores[normal] < 0.5).all(axis=1).mean())
    lines.append(f"| {NORMAL} | {normal.sum()} | {quiet:.1%} below every operating point | | |")
    table = "\n".join(lines)
    print(table)
    contact_sheet()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    with open(REPORT, "w", encoding="utf-8") as file:
        file.write(TEXT.format(table=table, minutes=minutes, drawn=drawn, machine=machine))


def area_under_roc(own: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The share of pairs in which the one that has the condition scores higher."""
    return float((own[:, None] > others[None, :]).mean())


def contact_sheet() -> None:
    """One drawing of each kind, four in a row."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    tiles = [to_uint8(draw(rng, condition, side=300)) for condition in (None, *CONDITIONS)]
    rows = [np.hstack(tiles[start : start + 4]) for start in range(0, len(tiles), 4)]
    Image.fromarray(np.vstack(rows)).save(SHEET, quality=85)


TEXT = """\
# The phantom network

`weights = "phantom"` lets a machine without the published weights do the whole job with results
that can be checked. It is a small network of the very class that TorchXRayVision uses (DenseNet,
growth 8, blocks 2-4-6-4, 18 outputs in the order of `densenet121-res224-chex`), **trained on
drawings and meaningless on patients**. Every record, page and summary made with it says so.

![One drawing of each kind: normal, then the eleven conditions](phantoms.jpg)

From left to right, top to bottom: normal, Atelectasis, Consolidation, Pneumothorax, Edema, Effusion,
Pneumonia, Cardiomegaly, Lung Lesion, Fracture, Lung Opacity, Enlarged Cardiomediastinum.

## What it does on drawings that it has not seen

{table}

The drawings of this table have another seed than those of the training and come in the file forms
and sizes of `xray-watcher phantoms` (JPEG and PNG, 8 and 16 bits, 512 to 1250 pixels), through the
service's own decoder. The top label is the one with the highest calibrated score.

## Made by

`make phantom`: {drawn} drawings, {minutes:.1f} minutes on {machine}. The page that you read and the
weights are written by it.
"""

if __name__ == "__main__":
    main()
