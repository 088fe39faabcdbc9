"""What scores batches: the interface that the pipeline knows, and how to come by one.

Nothing here imports torch before an engine is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from xray_watcher.core.catalogue import ENGINES
from xray_watcher.core.values import ModelInfo
from xray_watcher.errors import UsageError
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


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What an engine is made from.

    Attributes:
        store: the installed weights.
        weights: name of a set of the catalogue.
        weights_file: a checkpoint of that set in place of the stored one, or "".
        threads: of the processor; 0 is one per core that this process may use.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "float32" or "bfloat16".
    """

    store: WeightStore
    weights: str
    weights_file: str
    threads: int
    device: str
    precision: str


Load: TypeAlias = Callable[[EngineRequest], Engine]
"""The function `load` of an engine's module; it warms the engine up."""


def check_packages(kind: str) -> None:
    """Check that the packages of an engine are installed, without importing them.

    Raises:
        UsageError: one is missing; the message has the line that installs it.
    """
    engine = ENGINES[kind]
    if any(find_spec(package) is None for package in engine.packages):
        raise UsageError(
            f'engine = "{kind}" needs more: pip install "xray-watcher[{engine.extra}]"'
        )


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
        kind: a name of `ENGINES`.
        threads: of the network; 0 is one per core that this process may use.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "float32" or "bfloat16".

    Raises:
        WeightsError: the weights are not there, or wrong; the message says what to do. No
            other weights are ever taken in their place.
        ConfigError: the machine has no such device or precision, or that moves the scores.
        UsageError: an extra is needed.
    """
    check_packages(kind)
    load = cast(Load, import_module(ENGINES[kind].module).load)
    store = WeightStore(store_folder)
    return load(EngineRequest(store, weights, weights_file, threads, device, precision))
