"""A DenseNet for scoring: the sums of TorchXRayVision's, in the order that is quickest.

What is different, and why it gives the same scores:

- A batch norm that follows a convolution is folded into its weights; a ReLU after that runs in
  the convolution. What is left of the norms, at the head of each layer, is one scale and shift.
- A dense block is one buffer: each layer writes its channels behind those that are there,
  instead of copying all of them into a longer tensor.
- A transition averages before its 1x1 convolution, which commutes with it and then has a
  quarter of the work.
- Channels vary fastest, and weights are laid out once for the processor's convolutions.
- Few images at a time, so that what a layer writes is still in the cache when the next reads it.

A number format of 16 bits is used for the convolutions alone, but for the first; the blocks
keep 32.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

from xray_watcher.model.architecture import NORM_EPSILON, Architecture

State = Mapping[str, torch.Tensor]

_LAST = torch.channels_last


class FastDenseNet:
    """Made from the weights of the library's `DenseNet`; several threads may use it at once.

    Args:
        architecture: of the network.
        state: its tensors by name.
        device: where it runs.
        dtype: of the convolutions: float32, bfloat16 or float16.
        at_once: images that go through together; their buffers are kept for each thread.
    """

    def __init__(
        self,
        architecture: Architecture,
        state: State,
        *,
        device: torch.device,
        dtype: torch.dtype,
        at_once: int,
    ) -> None:
        self._dtype = dtype
        self._at_once = at_once
        self._kept = threading.local()
        lay_out = _Layout(state, device, dtype)
        self._stem = _Layout(state, device, torch.float32).convolution(
            "features.conv0", norm="features.norm0", stride=2
        )
        self._blocks = tuple(
            tuple(
                _layer(lay_out, f"features.denseblock{block}.denselayer{layer}")
                for layer in range(1, layers + 1)
            )
            for block, layers in enumerate(architecture.block_config, 1)
        )
        self._transitions = tuple(
            _Transition(
                lay_out.norm(f"features.transition{block}.norm"),
                lay_out.convolution(f"features.transition{block}.conv"),
            )
            for block in range(1, len(architecture.block_config))
        )
        self._last_norm = lay_out.norm("features.norm5")
        self._classifier = tuple(
            state[f"classifier.{part}"].float().to(device) for part in ("weight", "bias")
        )

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits `[N, outputs]` of float32 `[N, 1, side, side]` in -1024..1024."""
        with torch.inference_mode():
            return torch.cat([self._forward(few) for few in torch.split(pixels, self._at_once)])

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        first = self._stem(pixels.contiguous(memory_format=_LAST))
        features = functional.max_pool2d(first, kernel_size=3, stride=2, padding=1)
        for number, block in enumerate(self._blocks):
            features = self._dense(number, block, features)
            if number < len(self._transitions):
                features = self._shrunk(self._transitions[number], features)
        mean = self._rectified(self._last_norm, features).float().mean((2, 3))
        return functional.linear(mean, *self._classifier)

    def _dense(
        self, number: int, block: tuple[_Layer, ...], features: torch.Tensor
    ) -> torch.Tensor:
        """The features, and behind them what each layer makes of all that lie before it."""
        count, there, height, width = features.shape
        channels = there + sum(layer.grows for layer in block)
        every = self._buffer(f"block {number}", torch.float32, (count, channels, height, width))
        every[:, :there] = features
        for layer in block:
            inputs = self._rectified(layer.norm, every[:, :there])
            every[:, there : there + layer.grows] = layer.grow(layer.squeeze(inputs))
            there += layer.grows
        return every

    def _shrunk(self, transition: _Transition, features: torch.Tensor) -> torch.Tensor:
        rectified = self._rectified(transition.norm, features)
        return transition.squeeze(functional.avg_pool2d(rectified, 2)).float()

    def _rectified(self, norm: _Norm, features: torch.Tensor) -> torch.Tensor:
        """Scale, shift and ReLU, rounded for the convolution that comes next."""
        normed = self._buffer("normed", torch.float32, features.shape)
        torch.addcmul(norm.shift, features, norm.scale, out=normed)
        if self._dtype == torch.float32:
            return normed.relu_()
        rounded = self._buffer("rounded", self._dtype, features.shape).copy_(normed)
        # What is negative as a number is so as an integer, and those are compared much faster.
        rounded.view(torch.int16).clamp_min_(0)
        return rounded

    def _buffer(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """This thread's memory of that name, as a tensor whose channels vary fastest."""
        count, channels, height, width = shape
        flat: torch.Tensor | None = getattr(self._kept, name, None)
        size = count * channels * height * width
        if flat is None or flat.numel() < size:
            device = self._last_norm.scale.device
            flat = torch.empty(size, dtype=dtype, device=device)
            setattr(self._kept, name, flat)
        return flat[:size].view(count, height, width, channels).permute(0, 3, 1, 2)


# -- the parts ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Norm:
    """What a batch norm does when nothing is learnt: one scale and one shift a channel."""

    scale: torch.Tensor
    shift: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Layer:
    norm: _Norm
    squeeze: _Convolution
    grow: _Convolution

    @property
    def grows(self) -> int:
        return self.grow.outputs


@dataclass(frozen=True, slots=True)
class _Transition:
    norm: _Norm
    squeeze: _Convolution


def _layer(lay_out: _Layout, name: str) -> _Layer:
    return _Layer(
        lay_out.norm(f"{name}.norm1"),
        lay_out.convolution(f"{name}.conv1", norm=f"{name}.norm2"),
        lay_out.convolution(f"{name}.conv2"),
    )


class _Layout:
    """Takes weights from the state, folds them in float64 and puts them where they are used."""

    def __init__(self, state: State, device: torch.device, dtype: torch.dtype) -> None:
        self._state = state
        self._device = device
        self._dtype = dtype

    def norm(self, name: str) -> _Norm:
        scale, shift = (part.float().to(self._device) for part in self._scale_and_shift(name))
        return _Norm(scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1))

    def convolution(self, name: str, *, norm: str = "", stride: int = 1) -> _Convolution:
        """With the batch norm that follows it, if one does, and then a ReLU."""
        weight, shift = self._state[f"{name}.weight"].double(), None
        if norm:
            scale, shift = self._scale_and_shift(norm)
            weight = weight * scale.view(-1, 1, 1, 1)
        bias = None if shift is None else shift.to(self._device, self._dtype)
        weight = weight.to(self._device, self._dtype, memory_format=_LAST)
        has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        kind = _PackedConvolution if has_onednn and self._device.type == "cpu" else _Convolution
        return kind(weight, bias, stride, is_rectified=bool(norm))

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
        self, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, *, is_rectified: bool
    ) -> None:
        self.outputs = weight.shape[0]
        self._weight = weight
        self._bias = bias
        self._stride = stride
        self._padding = weight.shape[2] // 2
        self._is_rectified = is_rectified

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        found = functional.conv2d(inputs, self._weight, self._bias, self._stride, self._padding)
        return found.relu_() if self._is_rectified else found


class _PackedConvolution(_Convolution):
    """The same by oneDNN, in its own layout of the weights, which depends on the input's shape."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, *, is_rectified: bool
    ) -> None:
        super().__init__(weight, bias, stride, is_rectified=is_rectified)
        self._packed: torch.Tensor | None = None
        self._sizes = [self._padding] * 2, [stride] * 2, [1, 1], 1
        self._ending: tuple[str, list[None], str] = ("relu" if is_rectified else "none"), [], ""

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._packed is None:
            shape = list(inputs.shape)
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001
                self._weight, *self._sizes, shape
            )
        found: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
            inputs, self._packed, self._bias, *self._sizes, *self._ending
        )
        return found
