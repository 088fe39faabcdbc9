"""A DenseNet for scoring: the sums of TorchXRayVision's, in the order that is quickest.

What is different, and why it gives the same scores:

- A batch norm that follows a convolution is folded into its weights; a ReLU after that runs in
  the convolution. One that stands before a ReLU and a convolution, as at the head of each layer,
  is folded into that convolution too, and a limit for each channel is all that is left of it:
  relu(s x + b) is s (max(x, t) - t) for t = -b / s, and s (min(x, t) - t) where s is negative.
- A dense block is one buffer: each layer writes its channels behind those that are there,
  instead of copying all of them into a longer tensor.
- A transition averages before its 1x1 convolution, which commutes with it and then has a
  quarter of the work.
- Channels vary fastest, and weights are laid out once for the processor's convolutions.
- Few images at a time, so that what a layer writes is still in the cache when the next reads it:
  fewest in the first block, where there is most to write.

A number format of 16 bits is used for all but the first convolution and the classifier. So that
little is lost by it, a block keeps of each channel how far it is from that channel's mean.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn import functional

from xray_watcher.model.architecture import NORM_EPSILON, Architecture

State = Mapping[str, torch.Tensor]

_LAST = torch.channels_last
_FARTHEST = {torch.float16: 3e4}  # float16 ends at 65504
_FARTHEST_OF_OTHERS = 1e9
_INT16 = (-32768, 32767)


class FastDenseNet:
    """Made from the weights of the library's `DenseNet`; several threads may use it at once.

    Args:
        architecture: of the network.
        state: its tensors by name.
        device: where it runs.
        dtype: of the convolutions: float32, bfloat16 or float16.
        at_once: images that go through together; their buffers are kept for each thread.
        at_first: of these, images that go through the first block together.
    """

    def __init__(
        self,
        architecture: Architecture,
        state: State,
        *,
        device: torch.device,
        dtype: torch.dtype,
        at_once: int,
        at_first: int,
    ) -> None:
        self._dtype = dtype
        self._at_once = at_once
        self._at_first = at_first
        self._kept = threading.local()
        self._device = device
        self._stem = _Layout(state, device, torch.float32).convolution(
            "features.conv0", norm="features.norm0", stride=2
        )
        lay_out = _Layout(state, device, dtype)
        ends = [f"features.transition{n}.norm" for n in range(1, len(architecture.block_config))]
        blocks = [
            _Plan(f"features.denseblock{number}", layers, lay_out.means(end))
            for number, (layers, end) in enumerate(
                zip(architecture.block_config, [*ends, "features.norm5"], strict=True), 1
            )
        ]
        self._first_means = blocks[0].means[: self._stem.outputs].float().to(device).view(-1, 1, 1)
        self._blocks = tuple(_block(lay_out, plan) for plan in blocks)
        self._transitions = tuple(
            _transition(lay_out, f"features.transition{number}", before.means, after.means)
            for number, (before, after) in enumerate(pairwise(blocks), 1)
        )
        self._last, self._classifier = lay_out.classifier("features.norm5", blocks[-1].means)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits `[N, outputs]` of float32 `[N, 1, side, side]` in -1024..1024."""
        with torch.inference_mode():
            return torch.cat([self._forward(few) for few in torch.split(pixels, self._at_once)])

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        few = torch.split(pixels, self._at_first)
        features = torch.cat([self._first_block(part) for part in few])
        for number, transition in enumerate(self._transitions[1:], 1):
            features = self._shrunk(transition, self._dense(number, features))
        features = self._dense(len(self._transitions), features)
        mean = self._limited(self._last, features).mean((2, 3), dtype=torch.float32)
        return functional.linear(mean, *self._classifier)

    def _first_block(self, pixels: torch.Tensor) -> torch.Tensor:
        stem = self._stem(pixels.contiguous(memory_format=_LAST))
        features = functional.max_pool2d(stem, kernel_size=3, stride=2, padding=1)
        return self._shrunk(self._transitions[0], self._dense(0, features.sub_(self._first_means)))

    def _dense(self, number: int, features: torch.Tensor) -> torch.Tensor:
        """The features, and behind them what each layer makes of all that lie before it."""
        block = self._blocks[number]
        count, there, height, width = features.shape
        channels = there + sum(layer.grow.outputs for layer in block)
        every = self._buffer(f"block {number}", (count, channels, height, width))
        every[:, :there] = features
        for layer in block:
            inputs = self._limited(layer.limits, every[:, :there])
            every[:, there : there + layer.grow.outputs] = layer.grow(layer.squeeze(inputs))
            there += layer.grow.outputs
        return every

    def _shrunk(self, transition: _Transition, features: torch.Tensor) -> torch.Tensor:
        limited = self._limited(transition.limits, features)
        return transition.squeeze(functional.avg_pool2d(limited, 2))

    def _limited(self, limits: _Limits, features: torch.Tensor) -> torch.Tensor:
        limited = self._buffer("limited", features.shape)
        limits(features, limited)
        return limited

    def _buffer(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """This thread's memory of that name, as a tensor whose channels vary fastest."""
        count, channels, height, width = shape
        flat: torch.Tensor | None = getattr(self._kept, name, None)
        size = count * channels * height * width
        if flat is None or flat.numel() < size:
            flat = torch.empty(size, dtype=self._dtype, device=self._device)
            setattr(self._kept, name, flat)
        return flat[:size].view(count, height, width, channels).permute(0, 3, 1, 2)


# -- the parts ----------------------------------------------------------------------------


class _Limits:
    """A batch norm and a ReLU, reduced: a lowest or a highest value for each channel.

    bfloat16 numbers that are not negative are in the order of their bits as integers, which are
    compared several times as quickly, and all that are negative stand below them. So channels
    with a negative limit are negated first, and then every limit is one of those numbers.

    Args:
        scale: of each channel: where it is negative, the limit is the highest value.
        limit: of each channel, not negative if it is bfloat16; a channel of scale 0 becomes it.
        flips: which channels are negated first; none but of bfloat16.
    """

    def __init__(self, scale: torch.Tensor, limit: torch.Tensor, flips: torch.Tensor) -> None:
        self._is_by_bits = limit.dtype == torch.bfloat16
        lowest, highest = -math.inf, math.inf
        if self._is_by_bits:
            limit, lowest, highest = limit.view(torch.int16), *_INT16
        low = torch.where(scale < 0, lowest, limit).to(limit.dtype)
        high = torch.where(scale > 0, highest, limit).to(limit.dtype)
        sign_bits = torch.where(flips, _INT16[0], 0).to(torch.int16)
        self._low, self._high, self._sign_bits = (
            each.view(1, -1, 1, 1) for each in (low, high, sign_bits)
        )

    def __call__(self, features: torch.Tensor, limited: torch.Tensor) -> None:
        """Write the limited features."""
        if self._is_by_bits:
            limited = limited.view(torch.int16)
            torch.bitwise_xor(features.view(torch.int16), self._sign_bits, out=limited)
            features = limited
        torch.clamp(features, self._low, self._high, out=limited)


@dataclass(frozen=True, slots=True)
class _Layer:
    limits: _Limits
    squeeze: _Convolution
    grow: _Convolution


@dataclass(frozen=True, slots=True)
class _Transition:
    limits: _Limits
    squeeze: _Convolution


@dataclass(frozen=True, slots=True)
class _Plan:
    """A block to be laid out: its name, how many layers, and the mean of each of its channels."""

    name: str
    layers: int
    means: torch.Tensor


def _block(lay_out: _Layout, plan: _Plan) -> tuple[_Layer, ...]:
    layers = []
    for number in range(1, plan.layers + 1):
        name = f"{plan.name}.denselayer{number}"
        rectifier = lay_out.rectifier(f"{name}.norm1", plan.means)
        there = len(rectifier.scale)
        squeeze = lay_out.convolution(f"{name}.conv1", rectifier=rectifier, norm=f"{name}.norm2")
        grow = lay_out.convolution(f"{name}.conv2", means=plan.means[there:])
        layers.append(_Layer(rectifier.limits(lay_out.device), squeeze, grow))
    return tuple(layers)


def _transition(
    lay_out: _Layout, name: str, before: torch.Tensor, after: torch.Tensor
) -> _Transition:
    rectifier = lay_out.rectifier(f"{name}.norm", before)
    squeeze = lay_out.convolution(f"{name}.conv", rectifier=rectifier, means=after)
    return _Transition(rectifier.limits(lay_out.device), squeeze)


@dataclass(frozen=True, slots=True)
class _Rectifier:
    """A batch norm and a ReLU, to become limits and a part of the convolution that follows.

    Attributes:
        scale: float64 `[channels]`, of what the limits leave; 0 for a channel without effect.
        limit: of each channel, as the number format has it.
        constant: what a channel without effect is worth.
        flips: which channels are negated first.
    """

    scale: torch.Tensor
    limit: torch.Tensor
    constant: torch.Tensor
    flips: torch.Tensor

    def limits(self, device: torch.device) -> _Limits:
        """The limits alone."""
        return _Limits(*(part.to(device) for part in (self.scale, self.limit, self.flips)))

    def fold(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights `[outputs, channels]` for the limited features, and what is to be added."""
        scaled = (weight * self.scale).to(self.limit.dtype)
        # What a limit stops gives exactly nothing, also after rounding.
        added = weight @ self.constant - scaled.double() @ self.limit.double()
        return scaled, added


class _Layout:
    """Takes weights from the state, folds them in float64 and puts them where they are used."""

    def __init__(self, state: State, device: torch.device, dtype: torch.dtype) -> None:
        self._state = state
        self.device = device
        self._dtype = dtype

    def means(self, name: str) -> torch.Tensor:
        """What each channel was in the mean when the network was trained."""
        return self._state[f"{name}.running_mean"].double()

    def rectifier(self, name: str, means: torch.Tensor) -> _Rectifier:
        """A batch norm and a ReLU of channels that are kept less these means."""
        scale, shift = self._scale_and_shift(name)
        shift = shift + scale * means[: len(scale)]
        limit = -shift / scale
        farthest = _FARTHEST.get(self._dtype, _FARTHEST_OF_OTHERS)
        still = ~(limit.abs() < farthest)  # or is not a number: nothing comes near the limit
        flips = (limit < 0) & ~still & (self._dtype == torch.bfloat16)
        sign = torch.where(flips, -1.0, 1.0)
        return _Rectifier(
            scale=(sign * scale).masked_fill(still, 0.0),
            limit=(sign * limit + 0.0)
            .masked_fill(still, 0.0)
            .to(self._dtype),  # -0.0 is the least by its bits
            constant=torch.where(still, shift.relu(), 0.0),
            flips=flips,
        )

    def convolution(
        self,
        name: str,
        *,
        rectifier: _Rectifier | None = None,
        norm: str = "",
        means: torch.Tensor | None = None,
        stride: int = 1,
    ) -> _Convolution:
        """A convolution with what is folded into it.

        Args:
            name: of its weights.
            rectifier: what stood before it, if it is one of 1x1.
            norm: the batch norm after it; a ReLU follows that.
            means: what is to be taken off its outputs, instead.
            stride: 1 or 2.
        """
        weight = self._state[f"{name}.weight"].double()
        outputs = len(weight)
        bias = torch.zeros(outputs, dtype=torch.float64)
        if norm:
            scale, bias = self._scale_and_shift(norm)
            weight = weight * scale.view(-1, 1, 1, 1)
        if means is not None:
            bias = bias - means[:outputs]
        if rectifier is not None:
            weight, added = rectifier.fold(weight.flatten(1))
            weight, bias = weight.view(outputs, -1, 1, 1), bias + added
        weight = weight.to(self.device, self._dtype, memory_format=_LAST)
        kind = _PackedConvolution if _onednn_takes(weight) else _Convolution
        return kind(weight, bias.float().to(self.device), stride, is_rectified=bool(norm))

    def classifier(
        self, norm: str, means: torch.Tensor
    ) -> tuple[_Limits, tuple[torch.Tensor, ...]]:
        """The limits before the mean over a picture, and weight and bias for that mean."""
        weight, bias = (self._state[f"classifier.{part}"].double() for part in ("weight", "bias"))
        rectifier = self.rectifier(norm, means)
        scaled, added = rectifier.fold(weight)
        return rectifier.limits(self.device), (
            scaled.float().to(self.device),
            (bias + added).float().to(self.device),
        )

    def _scale_and_shift(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        weight, bias, mean, variance = (
            self._state[f"{name}.{part}"].double()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / torch.sqrt(variance + NORM_EPSILON)
        return scale, bias - mean * scale


class _Convolution:
    """A convolution that keeps the size, or halves it by its stride; with or without a ReLU."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, stride: int, *, is_rectified: bool
    ) -> None:
        self.outputs = weight.shape[0]
        self._weight = weight
        self._bias = bias.to(weight.dtype)
        self._stride = stride
        self._padding = weight.shape[2] // 2
        self._is_rectified = is_rectified

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        found = functional.conv2d(inputs, self._weight, self._bias, self._stride, self._padding)
        return found.relu_() if self._is_rectified else found


class _PackedConvolution(_Convolution):
    """The same by oneDNN, in its own layouts of the weights.

    Which it wants depends on the input's shape, and on whether threads share the work: with the
    layout of a shared image a batch takes up to a half more time, and the other way round.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, stride: int, *, is_rectified: bool
    ) -> None:
        super().__init__(weight, bias, stride, is_rectified=is_rectified)
        self._bias = bias  # oneDNN adds it before it rounds
        self._packed: dict[bool, torch.Tensor] = {}  # by whether threads share the work
        self._sizes = [self._padding] * 2, [stride] * 2, [1, 1], 1
        self._ending: tuple[str, list[None], str] = ("relu" if is_rectified else "none"), [], ""

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        is_shared = torch.get_num_threads() > 1
        packed = self._packed.get(is_shared)
        if packed is None:
            packed = pack(self._weight, *self._sizes, list(inputs.shape))
            self._packed[is_shared] = packed
        found: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
            inputs, packed, self._bias, *self._sizes, *self._ending
        )
        return found


def _onednn_takes(weight: torch.Tensor) -> bool:
    """Whether oneDNN is there and computes in this number format on this processor."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not has_onednn or weight.device.type != "cpu":
        return False
    is_float32 = weight.dtype == torch.float32
    return is_float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


pack = torch.ops.mkldnn._reorder_convolution_weight  # noqa: SLF001
"""Lays weights out for a convolution of a shape, by as many threads as are set now."""
