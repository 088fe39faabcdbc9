"""The forward pass alone, in turns: milliseconds an image of each engine at a batch of 8.

python benchmarks/forward.py --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from measuring import CORES, in_turns, ratio
from xray_watcher.model.network import LoadedNetwork, untrained
from xray_watcher.model.onnx_store import exported
from xray_watcher.model.processor import Processor, has_bfloat16
from xray_watcher.model.weights import WeightStore

BATCH = 8
GFLOP_AN_IMAGE = 5.62
"""Of this network's convolutions, two for each multiplication and addition."""

STOCK, CHANNELS_LAST, ONNXRUNTIME = "stock, eager", "stock, channels_last", "onnxruntime"
OURS, OURS_BF16, PRODUCT = "ours, float32", "ours, bfloat16", "matrix product"

Way = Callable[[], float]


def ways(cores: int = CORES, batch: int = BATCH) -> dict[str, Way]:
    """Each measures once: milliseconds an image; the matrix product in 1e9 operations a second."""
    torch.set_num_threads(cores)
    network = untrained()
    pixels = np.random.default_rng(1).uniform(-1024, 1024, (batch, 1, 224, 224)).astype(np.float32)
    found = {
        STOCK: _timed(_stock(network, torch.contiguous_format), pixels),
        CHANNELS_LAST: _timed(_stock(network, torch.channels_last), pixels),
        ONNXRUNTIME: _timed(_onnxruntime(cores), pixels),
        OURS: _timed(Processor(network, cores, "float32"), pixels),
    }
    if has_bfloat16():
        found[OURS_BF16] = _timed(Processor(network, cores, "bfloat16"), pixels)
    return found | {PRODUCT: _product}


def _timed(forward: Callable[[np.ndarray], object], pixels: np.ndarray) -> Way:
    forward(pixels)  # the first pass is a slow one

    def measure() -> float:
        began_s = time.perf_counter()
        forward(pixels)
        return (time.perf_counter() - began_s) * 1000 / len(pixels)

    return measure


def _stock(
    network: LoadedNetwork, layout: torch.memory_format
) -> Callable[[np.ndarray], torch.Tensor]:
    module = network.module.to(memory_format=layout)

    def forward(pixels: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = module(torch.from_numpy(pixels).contiguous(memory_format=layout))
        return found

    return forward


def _onnxruntime(cores: int) -> Callable[[np.ndarray], object]:
    """As onnxruntime comes, but for the number of threads; it may spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    with tempfile.TemporaryDirectory() as folder:
        path = Path(exported(WeightStore(folder), "untrained").path)
        session = onnxruntime.InferenceSession(path.read_bytes(), options)
    return lambda pixels: session.run(None, {session.get_inputs()[0].name: pixels})


def _product() -> float:
    """A large product by oneDNN, which runs the convolutions too: the limit."""
    inputs = torch.randn(1, 1024, 64, 64).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(1024, 1024, 1, 1).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.nn.functional.conv2d(inputs, weight)
        began_s = time.perf_counter()
        torch.nn.functional.conv2d(inputs, weight)
        seconds = time.perf_counter() - began_s
    return 2 * 1024 * 1024 * 64 * 64 / seconds / 1e9


def table(found: dict[str, list[float]]) -> str:
    """Medians and ratios, in Markdown."""
    rate = statistics.median(found[PRODUCT])
    lines = [
        f"| forward, {BATCH} images | ms an image | times onnxruntime | of the limit |",
        "|---|---:|---:|---:|",
    ]
    for name, measured in found.items():
        if name != PRODUCT:
            ms = statistics.median(measured)
            lines.append(
                f"| {name} | {ms:.1f} | {ratio(found, name, ONNXRUNTIME):.2f} | "
                f"{GFLOP_AN_IMAGE / ms * 1e3 / rate:.0%} |"
            )
    return "\n".join([*lines, "", f"The limit: {rate:.0f} billion operations a second in float32."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    print(table(in_turns(ways(), parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
