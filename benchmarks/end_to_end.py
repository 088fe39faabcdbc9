"""Images a second of the whole service on a backlog, beside the usual ways and its own stages.

    python benchmarks/end_to_end.py --images FOLDER --count 176

All see the same images, the same (untrained) weights and the same cores, in turns; what counts is
the ratio. Ours is `run --once`: scan, settle, claim, hash, decode, score, commit, file, log. Rates
are of work under way: start-up and the settle time are paid once, and are measured elsewhere.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from measuring import CORES, IMAGES, Service, at, copies, in_turns, pictures, ratio
from peers import Apart
from xray_watcher.config.settings import Settings
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode
from xray_watcher.model.network import untrained
from xray_watcher.model.processor import has_bfloat16
from xray_watcher.model.torch_engine import TorchEngine
from xray_watcher.service.network import decode_pool

BATCH = 16
HEAD_START = 3
"""Batches that are decoded while the network is loaded do not count."""

T, T2, V = "T: TorchXRayVision", "T2: TorchXRayVision, XRayResizer", "V: first prototype"
OURS, OURS_BF16, OURS_ONNX = "service, default", "service, bfloat16", "service, onnx"
DECODING, SCORING = "decoding alone", "scoring alone"

_MODES = {
    OURS: "",
    OURS_BF16: 'precision = "bfloat16"',
    OURS_ONNX: 'engine = "onnx"',
}


def ways(files: Sequence[Path], folder: Path) -> dict[str, Callable[[], float]]:
    """Each measures once: images a second."""
    peers = Apart(files, folder / "prototype")
    modes = [mode for mode in _MODES if mode != OURS_BF16 or has_bfloat16()]
    numbers = count()
    services = {
        mode: lambda mode=mode: service_rate(files, folder / str(next(numbers)), _MODES[mode])
        for mode in modes
    }
    return {
        T: peers.way("own"),
        T2: peers.way("own_resized"),
        V: peers.way("prototype"),
        **services,
        DECODING: lambda: decoding_rate(files),
        SCORING: scoring_rate(files),
    }


def service_rate(files: Sequence[Path], root: Path, model: str) -> float:
    """Images a second of `run --once` once it is under way."""
    service = Service(root, options={"model": model})
    copies(files, len(files), service.inbox)
    assert service.start("--once").wait() == 0, service.log.read_text()
    filed = [event for event in service.events() if event["event"] == "filed"]
    later = sum(event["images"] for event in filed[HEAD_START:])
    assert sum(event["images"] for event in filed) == len(files)
    return later / (at(filed[-1]) - at(filed[HEAD_START - 1]))


def decoding_rate(files: Sequence[Path]) -> float:
    """Images a second of the decoders with nothing beside them."""
    with decode_pool(Settings(root="/")) as pool:
        for future in [pool.submit(str(files[0])) for _ in range(2 * CORES)]:
            future.result()  # the children have started
        began_s = time.monotonic()
        for future in [pool.submit(str(path)) for path in files]:
            future.result()
        return len(files) / (time.monotonic() - began_s)


def scoring_rate(files: Sequence[Path]) -> Callable[[], float]:
    """Measures images a second of the default engine with nothing beside it.

    As the service begins: with a lone image, then a batch.
    """
    engine = TorchEngine(untrained(), threads=CORES, device="cpu", precision="float32")
    images = [decode(path.read_bytes(), DecodeLimits()).pixels for path in files]
    batches = [np.stack(images[begin : begin + BATCH]) for begin in range(0, len(images), BATCH)]
    engine.classify(batches[0])

    def measure() -> float:
        began_s = time.monotonic()
        for batch in batches:
            engine.classify(batch)
        return len(images) / (time.monotonic() - began_s)

    return measure


def table(found: dict[str, list[float]]) -> str:
    """Medians and ratios, in Markdown."""
    lines = ["| way | images/s | by T | by T2 | by V |", "|---|---:|---:|---:|---:|"]
    for name, rates in found.items():
        ratios = " | ".join(f"{ratio(found, name, peer):.2f}" for peer in (T, T2, V))
        lines.append(f"| {name} | {statistics.median(rates):.1f} | {ratios} |")
    slowest = min((DECODING, SCORING), key=lambda stage: statistics.median(found[stage]))
    together = [
        1 / (1 / decoding + 1 / scoring)
        for decoding, scoring in zip(found[DECODING], found[SCORING], strict=True)
    ]
    limit = statistics.median(together)
    reached = ratio({"both": together, **found}, OURS, "both")
    text = (
        f"The slowest stage is {slowest}. The service reaches {ratio(found, OURS, slowest):.0%} of "
        "its rate. Alone each stage keeps all cores busy. On the same cores both together "
        f"cannot exceed {limit:.1f} images/s. The service reaches {reached:.0%} of that."
    )
    return "\n".join([*lines, "", text])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--count", type=int, default=176, help="images in a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = copies(pictures(options.images), options.count, Path(folder) / "images")
        print(table(in_turns(ways(files, Path(folder)), options.rounds)))


if __name__ == "__main__":
    main()
