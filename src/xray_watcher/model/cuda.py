"""A network on a CUDA device. It has been tested without one: no such machine was at hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from xray_watcher.model.fast_densenet import FastDenseNet
from xray_watcher.model.forward import DTYPES, Forward, Precision
from xray_watcher.model.network import LoadedNetwork

Floats = NDArray[np.float32]

AT_ONCE = 64
"""Most images that go through together; halved whenever the memory does not suffice."""

_log = structlog.get_logger()


class Cuda:
    """Computes logits on the device.

    Args:
        network: with its weights.
        precision: of the convolutions.
    """

    def __init__(self, network: LoadedNetwork, precision: Precision) -> None:
        self.precision = precision
        self._device = torch.device("cuda")
        self._network = FastDenseNet(
            network.architecture,
            network.state,
            device=self._device,
            dtype=DTYPES[precision],
            at_once=AT_ONCE,
            at_first=AT_ONCE,
        )

    def __call__(self, pixels: Floats) -> Floats:
        """Logits `[N, outputs]` of float32 `[N, 1, 224, 224]`."""
        pinned = torch.from_numpy(pixels).pin_memory()  # the device fetches it while we go on
        logits: Floats = self._network(pinned.to(self._device, non_blocking=True)).cpu().numpy()
        return logits


class Halving:
    """Halves what is computed at once when the memory does not suffice; in the end, elsewhere.

    Args:
        forward: computes logits; raises `torch.OutOfMemoryError`.
        elsewhere: makes what computes them when not even one image fits.
        at_once: most images at once.
    """

    def __init__(
        self, forward: Forward, elsewhere: Callable[[], Forward], at_once: int = AT_ONCE
    ) -> None:
        self._forward = forward
        self._elsewhere = elsewhere
        self._at_once = at_once

    @property
    def precision(self) -> Precision:
        """Of what computes now."""
        return self._forward.precision

    def __call__(self, pixels: Floats) -> Floats:
        """Logits `[N, outputs]` of float32 `[N, 1, 224, 224]`."""
        done: list[Floats] = []
        while (start := sum(map(len, done))) < len(pixels):
            try:
                done.append(self._forward(pixels[start : start + self._at_once]))
            except torch.OutOfMemoryError:
                self._make_do()
        return np.concatenate(done)

    def _make_do(self) -> None:
        if self._at_once == 1:
            _log.warning(
                "the device has no memory for one image; the processor goes on",
                code="device_given_up",
            )
            self._forward, self._at_once = self._elsewhere(), AT_ONCE
        else:
            self._at_once //= 2
            _log.warning(
                "the device is out of memory",
                code="device_out_of_memory",
                images_at_once=self._at_once,
            )
