"""Networks for tests: seeded weights in which every part has something to do."""

from __future__ import annotations

import torch

from xray_watcher.core.catalogue import WEIGHT_SETS, WeightSet
from xray_watcher.model.architecture import DENSENET121, Architecture, shapes
from xray_watcher.model.network import LoadedNetwork

SMALL = Architecture(growth_rate=8, block_config=(2, 3, 2), num_init_features=16)


def as_if_trained(
    weights: WeightSet = WEIGHT_SETS["untrained"],
    architecture: Architecture = DENSENET121,
    seed: int = 0,
) -> LoadedNetwork:
    """Weights whose norms scale, shift and turn channels round, as after training."""
    random = torch.Generator().manual_seed(seed)
    state = {name: _tensor(name, shape, random) for name, shape in shapes(architecture).items()}
    return LoadedNetwork(architecture, state, weights, f"{seed:064x}")


def _tensor(name: str, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    drawn = torch.randn(shape, generator=random)
    if len(shape) == 4:
        return drawn * (2 / drawn[0].numel()) ** 0.5
    if name.endswith("running_var"):
        spread = 500.0 if "norm0" in name else 1.0  # of what comes from pixels in -1024..1024
        return (0.5 + drawn.abs()) * spread**2
    if "norm" in name and name.endswith("weight"):
        return (1 + 0.3 * drawn) * torch.where(drawn > 1.5, -1.0, 1.0)
    return drawn * (0.03 if name.startswith("classifier.w") else 0.3)
