"""What scores batches: the interface that the pipeline knows, and how to come by one.

Nothing here imports torch before an engine is loaded.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xray_watcher.core.catalogue import UNTRAINED
from xray_watcher.core.values import ModelInfo
from xray_watcher.model.onnx_file import check_onnx
from xray_watcher.model.weights import WeightStore


class Engine(Protocol):
    """A loaded network."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The trained labels, in the order of the scores; unnamed outputs do not appear."""
        ...

    @property
    def operating_points(self) -> tuple[float, ...]:
        """The raw score of each label that becomes 0.5 when it is calibrated."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Which network this is, for records."""
        ...

    def classify(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score a batch in one forward pass.

        Args:
            batch: float32 `[N, 1, 224, 224]`, in -1024..1024.

        Returns:
            float32 `[N, labels]`: the sigmoid of each logit, in 0..1, not calibrated.

        Raises:
            RuntimeError: the device failed or is out of memory.
        """
        ...


def load_engine(
    weights: str,
    weights_file: str,
    store_folder: str,
    *,
    kind: str,
    threads: int,
    device: str,
    precision: str,
) -> Engine:
    """Load the network with the named weights, and warm it up.

    Args:
        weights: name of a weight set of the catalogue.
        weights_file: a checkpoint of that set to use in place of the published one, or "".
        store_folder: where imported weights lie.
        kind: "torch" or "onnx"; the others of these arguments but `threads` are for torch.
        threads: of the network; 0 is one per core that this process may use.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "float32" or "bfloat16".

    Raises:
        WeightsError: the weights are not there, or wrong; the message says what to do. No
            other weights are ever taken in their place.
        ConfigError: the machine has no such device or precision, or that moves the scores.
        UsageError: an extra is needed.
    """
    store = WeightStore(store_folder)
    if kind == "onnx":
        return _onnx_engine(store, weights, threads)
    from xray_watcher.model.network import untrained
    from xray_watcher.model.torch_engine import TorchEngine

    if weights == UNTRAINED.name:
        network = untrained()
    elif weights_file:
        network = store.load_file(weights, weights_file)
    else:
        network = store.load(weights)
    return TorchEngine(network, threads=threads, device=device, precision=precision)


def _onnx_engine(store: WeightStore, weights: str, threads: int) -> Engine:
    check_onnx()
    from xray_watcher.model.onnx_engine import OnnxEngine
    from xray_watcher.model.onnx_store import export_weights

    return OnnxEngine(export_weights(store, weights), threads=threads)
