"""A network on the cores of the processor: each core has images of its own."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray

from xray_watcher.model.fast_densenet import FastDenseNet
from xray_watcher.model.forward import DTYPES, Precision
from xray_watcher.model.network import LoadedNetwork

Floats = NDArray[np.float32]

AT_ONCE: Mapping[Precision, tuple[int, int]] = {
    "float32": (4, 1),
    "bfloat16": (8, 2),
}
"""Images that go through the network together on one core, and those of them that go through its
first block: what they need fits the cache."""

CPU_FACTS = "/proc/cpuinfo"

# mallopt(3): what a layer frees stays with its thread for the next. Given back and fetched anew,
# it costs a bfloat16 pass a twelfth of its time.
_KEEPING = (
    (-1, 64 << 20),  # M_TRIM_THRESHOLD: as much may be free at the end of a thread's heap
    (-2, 64 << 20),  # M_TOP_PAD: a heap (of 64 MB) that is empty is kept for when it is needed next
    (-3, 32 << 20),  # M_MMAP_THRESHOLD: up to here (the most), nothing has a mapping of its own
)

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # as the kernel names them
_THIS = threading.local()


class Processor:
    """Computes logits on some threads.

    Threads that work on one image together wait for each other at every layer, and for the
    decoders that take their core away; threads with images of their own do not. So the cores
    share an image only where there are more cores than images.

    OpenMP keeps helpers for each thread that ever computed with some. So the first thread has the
    first images of a batch every time: of n threads, the k-th never has more than n / k helpers.

    Args:
        network: with its weights.
        threads: 1 or more.
        precision: of the convolutions: "float32" or "bfloat16".
    """

    def __init__(self, network: LoadedNetwork, threads: int, precision: Precision) -> None:
        self.precision = precision
        at_once, at_first = AT_ONCE[precision]
        _keep_what_is_freed()
        self._network = FastDenseNet(
            network.architecture,
            network.state,
            device=torch.device("cpu"),
            dtype=DTYPES[precision],
            at_once=at_once,
            at_first=at_first,
        )
        self._threads = threads
        self._workers = [ThreadPoolExecutor(1, f"score {n}") for n in range(threads)]

    def __call__(self, pixels: Floats) -> Floats:
        """Logits `[N, outputs]` of float32 `[N, 1, 224, 224]`."""
        parts = np.array_split(pixels, min(self._threads, len(pixels)))
        threads_each = self._threads // len(parts)
        scored = [
            worker.submit(self._part, part, threads_each)
            for worker, part in zip(self._workers, parts, strict=False)
        ]
        return np.concatenate([future.result() for future in scored])

    def _part(self, pixels: Floats, threads: int) -> Floats:
        _use_threads(threads)
        logits: Floats = self._network(torch.from_numpy(pixels)).numpy()
        return logits


def _use_threads(count: int) -> None:
    """Let what this thread computes use so many threads."""
    if getattr(_THIS, "threads", None) != count:
        torch.get_num_threads()  # or torch would set the number of another thread at first use
        torch.set_num_threads(count)
        _THIS.threads = count


def _keep_what_is_freed() -> None:
    """Let the C library keep memory for the next layer; one that cannot is merely slower."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in _KEEPING:
            mallopt(parameter, size)


def has_bfloat16() -> bool:
    """Whether the processor computes with bfloat16 itself (AVX512-BF16 or AMX)."""
    try:
        with open(CPU_FACTS, encoding="ascii", errors="replace") as file:
            flags = set(file.read().split())
    except OSError:
        return False
    return not flags.isdisjoint(_BFLOAT16)
