"""The engine that runs on PyTorch, on the processor's cores or on a CUDA device."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from xray_watcher.core.catalogue import UNTRAINED
from xray_watcher.errors import ConfigError
from xray_watcher.model.architecture import SIDE
from xray_watcher.model.cuda import Cuda, Halving
from xray_watcher.model.engine import EngineRequest
from xray_watcher.model.engine_base import EngineBase
from xray_watcher.model.forward import Forward, Precision
from xray_watcher.model.network import LoadedNetwork, untrained
from xray_watcher.model.precision_check import disagreement
from xray_watcher.model.processor import Processor, has_bfloat16

Floats = NDArray[np.float32]

_log = structlog.get_logger()


def load(request: EngineRequest) -> TorchEngine:
    """Load a network onto the processor or a CUDA device."""
    if request.weights == UNTRAINED.name:
        network = untrained()
    elif request.weights_file:
        network = request.store.load_file(request.weights, request.weights_file)
    else:
        network = request.store.load(request.weights)
    return TorchEngine(
        network,
        threads=request.threads,
        device=request.device,
        precision=request.precision,
    )


class TorchEngine(EngineBase):
    """Scores batches with a DenseNet.

    Args:
        network: with its weights.
        threads: of the processor; 0 is one per core that this process may use.
        device: "auto" (cuda where there is one), "cpu" or "cuda".
        precision: "auto" (float32; on cuda float16 where that holds), "float32" or "bfloat16".

    Raises:
        ConfigError: the machine has no such device or number format, or the number format that
            was asked for moves the scores too far.
    """

    def __init__(
        self, network: LoadedNetwork, *, threads: int, device: str, precision: str
    ) -> None:
        super().__init__(network.weight_set, network.sha256)
        is_cuda = _is_cuda(device)
        made = partial(
            _on_device, network, threads or len(os.sched_getaffinity(0)), is_cuda=is_cuda
        )
        self._forward: Forward = made("float32")
        quick = _quick_precision(precision, is_cuda=is_cuda)
        if quick is not None:
            is_asked_for = precision != "auto"
            self._forward = self._checked(made(quick), self._forward, is_asked_for=is_asked_for)
        self.classify(np.zeros((1, 1, SIDE, SIDE), np.float32))  # the first pass is a slow one

    @property
    def _precision(self) -> str:
        return self._forward.precision

    def classify(self, batch: Floats) -> Floats:
        """Score a batch: sigmoids `[N, labels]` of float32 `[N, 1, 224, 224]`.

        Raises:
            RuntimeError: the device failed or is out of memory.
        """
        return self._scores(self._forward, batch)

    def _scores(self, forward: Forward, batch: Floats) -> Floats:
        logits = torch.from_numpy(forward(batch)[:, self._trained])
        scores: Floats = torch.sigmoid(logits).numpy()
        return scores

    def _checked(self, quick: Forward, exact: Forward, *, is_asked_for: bool) -> Forward:
        """The quick one if it holds; otherwise the exact one, unless that was not asked for.

        Raises:
            ConfigError: the precision that was asked for does not hold.
        """
        if quick.precision == exact.precision:
            return exact  # the device had no room for the quick one
        wrong = disagreement(
            self._weights, partial(self._scores, exact), partial(self._scores, quick)
        )
        if wrong is None:
            return quick
        if not is_asked_for:
            _log.warning(
                "float32 is used", code="float32_used", because=f"{quick.precision} {wrong}"
            )
            return exact
        problem = (
            f"model.precision: with the weights {self._weights.name} {quick.precision} "
            f'{wrong}; set precision = "float32".'
        )
        raise ConfigError([problem])


def _on_device(
    network: LoadedNetwork, threads: int, precision: Precision, *, is_cuda: bool
) -> Forward:
    if not is_cuda:
        return Processor(network, threads, precision)
    on_processor = partial(Processor, network, threads, "float32")
    try:
        return Halving(Cuda(network, precision), on_processor)
    except torch.OutOfMemoryError:  # another program has the memory
        _log.warning(
            "the device has no memory for the network",
            code="device_lacks_memory",
            precision=precision,
        )
        return on_processor()


def _quick_precision(wanted: str, *, is_cuda: bool) -> Precision | None:
    """The number format to try beside float32, if any.

    Raises:
        ConfigError: the processor does not have it.
    """
    if wanted == "auto":
        return "float16" if is_cuda else None
    if wanted == "float32":
        return None
    if not is_cuda and not has_bfloat16():
        problem = (
            "model.precision: this processor does not compute with bfloat16 itself "
            '(avx512_bf16 or amx_bf16 in /proc/cpuinfo); set precision = "float32".'
        )
        raise ConfigError([problem])
    return "bfloat16"


def _is_cuda(device: str) -> bool:
    there_is = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not there_is:
        problem = (
            'model.device: torch sees no CUDA device; set device = "auto" or "cpu", '
            "or see to the driver."
        )
        raise ConfigError([problem])
    return there_is
