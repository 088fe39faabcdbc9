"""The shape of a network and its tensors by name: what can be known without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from xray_watcher.core.catalogue import OUTPUTS

SIDE = 224
"""Width and height of what the network sees, in pixels."""

NORM_EPSILON = 1e-5
"""Added to each variance, as in `torch.nn.BatchNorm2d`."""

_SQUEEZED = 4  # times the growth rate: channels between the two convolutions of a layer


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

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """As `dataclasses.asdict` and JSON made a text of it.

        Raises:
            ValueError: it is no architecture.
        """
        fields = json.loads(text)
        try:
            growth, blocks, first = (fields[name] for name in cls.__slots__)
            numbers = [growth, first, *blocks]
        except (TypeError, KeyError) as error:
            raise ValueError(f"it names no architecture ({error})") from error
        if not blocks or not all(type(n) is int and 0 < n <= 1024 for n in numbers):
            raise ValueError("it names an architecture that there is not")
        return cls(growth, tuple(blocks), first)


DENSENET121 = Architecture(growth_rate=32, block_config=(6, 12, 24, 16), num_init_features=64)


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The tensors that a network of this architecture has: shape by name, in order."""
    return {
        name: shape
        for part, of_weight in _parts(architecture)
        for name, shape in _tensors(part, of_weight)
    }


def state_hash(state: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 in hexadecimal over names and values of all tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].tobytes())
    return digest.hexdigest()


def _parts(architecture: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every part with weights and the shape of its weight, from the image to the logits."""
    growth, channels = architecture.growth_rate, architecture.num_init_features
    squeezed = _SQUEEZED * growth
    yield "features.conv0", (channels, 1, 7, 7)
    yield "features.norm0", (channels,)
    for block, layers in enumerate(architecture.block_config, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            yield f"{name}.norm1", (channels,)
            yield f"{name}.conv1", (squeezed, channels, 1, 1)
            yield f"{name}.norm2", (squeezed,)
            yield f"{name}.conv2", (growth, squeezed, 3, 3)
            channels += growth
        if block < len(architecture.block_config):
            yield f"features.transition{block}.norm", (channels,)
            yield f"features.transition{block}.conv", (channels // 2, channels, 1, 1)
            channels //= 2
    yield "features.norm5", (channels,)
    yield "classifier", (len(OUTPUTS), channels)


def _tensors(part: str, of_weight: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{part}.weight", of_weight
    if len(of_weight) != 4:  # the convolutions have no bias
        yield f"{part}.bias", of_weight[:1]
    if len(of_weight) == 1:
        yield f"{part}.running_mean", of_weight
        yield f"{part}.running_var", of_weight
