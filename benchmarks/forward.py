"""The forward pass alone, in turns: milliseconds an image of each engine at a batch of 8.

Ours also at a batch of 32, which is what the service takes from a backlog.

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
from peers import BATCH, Apart
from xray_watcher.model.forward import Precision
from xray_watcher.model.network import LoadedNetwork, untrained
from xray_watcher.model.onnx_store import export_weights
from xray_watcher.model.processor import Processor, has_bfloat16
from xray_watcher.model.weights import WeightStore

GFLOP_AN_IMAGE = 5.62
"""Of this network's convolutions, two for each multiplication and addition."""

STOCK, CHANNELS_LAST, ONNXRUNTIME = "stock, eager", "stock, channels_last", "onnxruntime"
OURS, OURS_BF16, PRODUCT = "ours, float32", "ours, bfloat16", "matrix product"
OF_BACKLOG = 32
OURS_MANY, OURS_BF16_MANY = (f"{way}, {OF_BACKLOG} images" for way in (OURS, OURS_BF16))

Way = Callable[[], float]


def every_way(folder: Path) -> dict[str, Way]:
    """The stock network's, which run in a process of their own, and `ways`."""
    peers = Apart([], folder / "peers")
    return {STOCK: peers.way("stock"), CHANNELS_LAST: peers.way("channels_last"), **ways()}


def ways(cores: int = CORES) -> dict[str, Way]:
    """Each measures once: milliseconds an image; the matrix product in 1e9 operations a second."""
    torch.set_num_threads(cores)
    network = untrained()
    many = np.random.default_rng(1).uniform(-1024, 1024, (OF_BACKLOG, 1, 224, 224))
    many = many.astype(np.float32)
    few = many[:BATCH]
    exact = _processor(network, cores, "float32")
    found = {
        ONNXRUNTIME: _timed(_onnxruntime(cores), few),
        OURS: _timed(exact, few),
        OURS_MANY: _timed(exact, many),
    }
    if has_bfloat16():
        quick = _processor(network, cores, "bfloat16")
        found |= {OURS_BF16: _timed(quick, few), OURS_BF16_MANY: _timed(quick, many)}
    return found | {PRODUCT: _product}


def _processor(network: LoadedNetwork, cores: int, precision: Precision) -> Processor:
    """As the service begins: with a lone image."""
    processor = Processor(network, cores, precision)
    processor(np.zeros((1, 1, 224, 224), np.float32))
    return processor


def _timed(forward: Callable[[np.ndarray], object], pixels: np.ndarray) -> Way:
    forward(pixels)  # the first pass is a slow one

    def measure() -> float:
        began_s = time.perf_counter()
        forward(pixels)
        return (time.perf_counter() - began_s) * 1000 / len(pixels)

    return measure


def _onnxruntime(cores: int) -> Callable[[np.ndarray], object]:
    """As onnxruntime comes, but for the number of threads; it may spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    with tempfile.TemporaryDirectory() as folder:
        path = Path(export_weights(WeightStore(folder), "untrained").path)
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
    lines += ["", f"The limit: {rate:.0f} billion operations a second in float32."]
    if OURS_BF16_MANY in found:
        times = ratio(found, OURS_MANY, OURS_BF16_MANY)
        lines.append(f"Of {OF_BACKLOG} images, bfloat16 is {times:.2f} x as quick as our float32.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        print(table(in_turns(every_way(Path(folder)), rounds)))


if __name__ == "__main__":
    main()
