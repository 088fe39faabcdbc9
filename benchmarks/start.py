"""How soon the service is ready, and how much memory it takes.

    python benchmarks/start.py

"Ready" is when the network can score; files are claimed and decoded before that.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from measuring import (
    IMAGES,
    PROGRAM,
    Service,
    at,
    copies,
    in_turns,
    pictures,
    processes_below,
    resident_mb,
)
from xray_watcher.core.catalogue import UNTRAINED
from xray_watcher.model.network import untrained
from xray_watcher.model.onnx_store import export_weights
from xray_watcher.model.weights import WeightStore

WEIGHTS = "densenet121-res224-nih"
HELP, LIBRARY = "--help", "import torch, torchxrayvision, read the weights"
READY, READY_ONNX = "run is ready", "run is ready, onnx"


def ways(folder: Path) -> dict[str, Callable[[], float]]:
    """Each measures once, in seconds from the start of a process."""
    checkpoint = folder / "checkpoint.pt"
    torch.save(untrained().module, checkpoint)
    default, onnx = (_service(folder / name, name, checkpoint) for name in ("torch", "onnx"))
    return {
        HELP: lambda: _seconds([*PROGRAM, "--help"]),
        LIBRARY: lambda: _seconds([sys.executable, "-c", _LIBRARY, str(checkpoint)]),
        READY: lambda: _until(default, "network ready"),
        READY_ONNX: lambda: _until(onnx, "network ready"),
    }


_LIBRARY = (
    "import sys, torch, torchxrayvision\n"
    "torch.load(sys.argv[1], map_location='cpu', weights_only=False)"
)


def _service(root: Path, engine: str, checkpoint: Path) -> Service:
    service = Service(root, options={"model": f'weights = "{WEIGHTS}"\nengine = "{engine}"'})
    store = WeightStore(str(service.state / "weights"))
    service.state.mkdir()
    store.import_file(WEIGHTS, str(checkpoint), trust=True)
    return service


def _seconds(command: list[str]) -> float:
    began_s = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began_s


def _until(service: Service, event: str) -> float:
    began_s = time.time()
    process = service.start()
    try:
        service.wait_for(lambda: event.encode() in service.log.read_bytes(), 120)
        return next(at(found) for found in service.events() if found["event"] == event) - began_s
    finally:
        process.terminate()
        process.wait(60)


def resident(images: Path, model: str) -> float:
    """Megabytes of all processes together after 64 images."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "root", options={"model": model})
        export_weights(WeightStore(str(service.state / "weights")), UNTRAINED.name)
        copies(pictures(images), 64, service.inbox)
        process = service.start()
        try:
            service.wait_for(lambda: b'"last_index": 63' in service.log.read_bytes(), 300)
            return resident_mb(processes_below(process.pid))
        finally:
            process.terminate()
            process.wait(60)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = in_turns(ways(Path(folder)), 5)
    for name, seconds in found.items():
        print(f"{name}: {statistics.median(seconds):.2f} s")
    for model in ("", 'precision = "bfloat16"', 'engine = "onnx"'):
        print(f"{model or 'default'}: {resident(IMAGES, model):.0f} MB")


if __name__ == "__main__":
    main()
