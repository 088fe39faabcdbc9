"""The engine that runs on PyTorch."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray

from xray_watcher.core.values import ModelInfo
from xray_watcher.model.network import LoadedNetwork

_SIDE = 224


class TorchEngine:
    """Scores batches with a DenseNet in float32.

    Args:
        network: with its weights.
        threads: 0 is one per core that this process may use.
        device: "auto" (cuda where there is one), "cpu" or "cuda".
        precision: "float32".
    """

    def __init__(
        self, network: LoadedNetwork, *, threads: int, device: str, precision: str
    ) -> None:
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        wants_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self._device = torch.device("cuda" if wants_cuda else "cpu")
        # The last channel varies fastest in what the processor's convolutions like best.
        module = network.module.to(self._device)
        self._module = module.to(memory_format=torch.channels_last)
        self._trained = torch.tensor(network.weight_set.trained, device=self._device)
        self._weight_set = network.weight_set
        self._info = ModelInfo(
            network.weight_set.name, network.sha256, precision, network.weight_set.simulated
        )
        self.classify(np.zeros((1, 1, _SIDE, _SIDE), np.float32))  # the first pass is a slow one

    @property
    def labels(self) -> tuple[str, ...]:
        """The trained labels, in the order of the scores."""
        return self._weight_set.labels

    @property
    def operating_points(self) -> tuple[float, ...]:
        """The raw score of each label that becomes 0.5."""
        return self._weight_set.trained_points

    @property
    def info(self) -> ModelInfo:
        """Which network this is."""
        return self._info

    def classify(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score a batch in one forward pass: sigmoids `[N, labels]` of float32 `[N, 1, 224, 224]`.

        Raises:
            RuntimeError: the device failed or is out of memory.
        """
        with torch.inference_mode():
            pixels = torch.from_numpy(batch).to(self._device, memory_format=torch.channels_last)
            logits = self._module(pixels).index_select(1, self._trained)
            scores: NDArray[np.float32] = torch.sigmoid(logits).cpu().numpy()
        return scores
