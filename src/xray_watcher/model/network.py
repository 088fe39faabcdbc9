"""The network: TorchXRayVision's own DenseNet class, giving raw logits."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import nn

from xray_watcher.core.catalogue import OUTPUTS, UNTRAINED, WeightSet

BATCH_COUNTER = "num_batches_tracked"
"""End of the names of tensors that only training needs."""

_UNTRAINED_SEED = 20261123
_UNTRAINED_SPREAD = 0.01  # without it all sigmoids of a fresh network are exactly 0 or 1


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a DenseNet (Huang et al., CVPR 2017, table 1).

    Attributes:
        growth_rate: channels that each layer adds.
        block_config: layers in each dense block.
        num_init_features: channels of the first convolution.
    """

    growth_rate: int
    block_config: tuple[int, ...]
    num_init_features: int


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network with its weights, and what they are.

    Attributes:
        module: from float32 `[N, 1, 224, 224]` to logits `[N, 18]`, in evaluation mode.
        weight_set: what the 18 outputs mean.
        sha256: hash of the checkpoint that the weights are from, in hexadecimal.
    """

    module: nn.Module
    weight_set: WeightSet
    sha256: str


DENSENET121 = Architecture(growth_rate=32, block_config=(6, 12, 24, 16), num_init_features=64)


@cache
def library() -> ModuleType:
    """TorchXRayVision; importing it takes seconds, prints, and silences all warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        import torchxrayvision
    return torchxrayvision  # type: ignore[no-any-return]


def build(architecture: Architecture) -> nn.Module:
    """A network with random weights, in evaluation mode.

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


def skeleton(architecture: Architecture) -> nn.Module:
    """A network without memory for its weights: for their names and shapes, or to be filled."""
    with torch.device("meta"):
        return build(architecture)


def filled(architecture: Architecture, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """A network with these weights, in evaluation mode.

    Args:
        architecture: of the network that the weights are of.
        state: every tensor by its name; counters of batches may be missing.

    Raises:
        RuntimeError: names or shapes are another network's.
    """
    network = skeleton(architecture)
    counters = {
        name: torch.zeros((), dtype=torch.int64)
        for name in network.state_dict()
        if name.endswith(BATCH_COUNTER)
    }
    network.load_state_dict(counters | dict(state), strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def untrained() -> LoadedNetwork:
    """The true architecture with weights that are random, and the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_UNTRAINED_SEED)
        module = build(DENSENET121)
    with torch.no_grad():
        module.get_submodule("classifier").get_parameter("weight").mul_(_UNTRAINED_SPREAD)
    return LoadedNetwork(module, UNTRAINED, state_hash(module.state_dict()))


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 in hexadecimal over names and values of all tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
