"""The network as data: its shape, its tensors by name, and what they mean.

Scoring needs no more than that, so TorchXRayVision, whose import takes seconds, is imported only
where its own class is asked for: to train, and to compare with.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xray_watcher.core.catalogue import OUTPUTS, UNTRAINED, WeightSet
from xray_watcher.model.architecture import DENSENET121, Architecture, shapes, state_hash

BATCH_COUNTER = "num_batches_tracked"
"""End of the names of tensors that only training needs."""

_UNTRAINED_SEED = 20261123
_UNTRAINED_SPREAD = 0.0003  # without it all sigmoids of a fresh network are exactly 0 or 1


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """The weights of a network, and what they are.

    Attributes:
        architecture: its shape.
        state: its tensors by name, float32.
        weight_set: what the 18 outputs mean.
        sha256: hash of the checkpoint that the weights are from, in hexadecimal.
    """

    architecture: Architecture
    state: Mapping[str, torch.Tensor]
    weight_set: WeightSet
    sha256: str

    @property
    def module(self) -> nn.Module:
        """TorchXRayVision's own network with these weights, made anew."""
        return filled(self.architecture, self.state)


def untrained() -> LoadedNetwork:
    """The true architecture with weights that are random, and the same every time."""
    random = torch.Generator().manual_seed(_UNTRAINED_SEED)
    state = {
        name: _random_tensor(name, shape, random) for name, shape in shapes(DENSENET121).items()
    }
    return LoadedNetwork(DENSENET121, state, UNTRAINED, state_hash(arrays(state)))


def _random_tensor(name: str, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    """As the library begins to train (He et al., ICCV 2015); the norms change nothing yet."""
    drawn = torch.randn(shape, generator=random)
    if name.startswith("classifier"):
        return drawn * _UNTRAINED_SPREAD
    if len(shape) == 4:
        return drawn * math.sqrt(2 / math.prod(shape[1:]))
    return torch.ones(shape) if name.endswith(("weight", "var")) else torch.zeros(shape)


def arrays(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    """The tensors as arrays on the same memory, by name."""
    return {name: tensor.numpy() for name, tensor in state.items()}


# -- TorchXRayVision's own ----------------------------------------------------------------


@cache
def library() -> ModuleType:
    """TorchXRayVision; importing it takes seconds, prints, and silences all warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        import torchxrayvision
    return torchxrayvision  # type: ignore[no-any-return]


def build(architecture: Architecture) -> nn.Module:
    """The library's network with random weights, in evaluation mode.

    Returns:
        A module from float32 `[N, 1, 224, 224]` in -1024..1024 to logits `[N, 18]`: no sigmoid and
        no operating points are applied in it.
    """
    network: nn.Module = library().models.DenseNet(
        growth_rate=architecture.growth_rate,
        block_config=architecture.block_config,
        num_init_features=architecture.num_init_features,
        num_classes=len(OUTPUTS),
        weights=None,
    )
    return network.eval()


def filled(architecture: Architecture, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The library's network with these weights, in evaluation mode.

    Args:
        architecture: of the network that the weights are of.
        state: every tensor by its name; counters of batches may be missing.

    Raises:
        RuntimeError: names or shapes are another network's.
    """
    with torch.device("meta"):  # no memory for weights that are replaced at once
        network = build(architecture)
    counters = {
        name: torch.zeros((), dtype=torch.int64)
        for name in network.state_dict()
        if name.endswith(BATCH_COUNTER)
    }
    network.load_state_dict(counters | dict(state), strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)
