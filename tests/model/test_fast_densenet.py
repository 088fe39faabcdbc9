"""`model.fast_densenet`: the library's scores, sooner."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from networks import SMALL, as_if_trained

from xray_watcher.core.catalogue import PUBLISHED, WeightSet
from xray_watcher.model import fast_densenet
from xray_watcher.model.fast_densenet import FastDenseNet
from xray_watcher.model.network import LoadedNetwork, untrained
from xray_watcher.model.processor import Processor
from xray_watcher.model.weights import WeightStore

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(4).uniform(-1024, 1024, (5, 1, 224, 224)).astype(np.float32)
CLOSE = 1e-4


def sigmoids(logits: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(logits.double())


def expected(network: LoadedNetwork, pixels: np.ndarray = PIXELS) -> torch.Tensor:
    torch.set_num_threads(1)  # threads that wait for each other are slow on a busy machine
    with torch.inference_mode():
        return sigmoids(network.module(torch.from_numpy(pixels)))


def found(network: LoadedNetwork, pixels: np.ndarray = PIXELS, at_once: int = 2) -> torch.Tensor:
    fast = FastDenseNet(
        network.architecture,
        network.state,
        device=CPU,
        dtype=torch.float32,
        at_once=at_once,
        at_first=1,
    )
    return sigmoids(fast(torch.from_numpy(pixels)))


def furthest(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize(("seed", "weights"), [*enumerate(PUBLISHED)])
def test_scores_are_those_of_the_library_s_network_for_every_set(
    seed: int, weights: WeightSet
) -> None:
    network = as_if_trained(weights, seed=seed)
    assert furthest(found(network), expected(network)) < CLOSE


@pytest.mark.parametrize("network", [untrained(), WeightStore("").load("phantom")])
def test_scores_are_those_of_the_library_s_network_for_what_is_built_in(
    network: LoadedNetwork,
) -> None:
    assert furthest(found(network), expected(network)) < CLOSE


def test_scores_of_the_test_networks_use_the_whole_range() -> None:
    scores = expected(as_if_trained())
    assert scores.min() < 0.2
    assert scores.max() > 0.8
    assert scores.std(0).max() > 0.005  # and differ from image to image


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_any_number_of_images_may_come_and_go_through_at_once(count: int, at_once: int) -> None:
    network = as_if_trained(architecture=SMALL)
    pixels = PIXELS[:count]
    assert furthest(found(network, pixels, at_once), expected(network, pixels)) < CLOSE


def test_what_an_image_scores_does_not_hang_on_those_before_it() -> None:
    network = as_if_trained(architecture=SMALL)
    fast = FastDenseNet(
        SMALL, network.state, device=CPU, dtype=torch.float32, at_once=4, at_first=3
    )
    many, one = torch.from_numpy(PIXELS), torch.from_numpy(PIXELS[2:3])
    first = fast(one)
    fast(many)
    assert torch.equal(fast(one), first)


def test_without_onednn_the_scores_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = as_if_trained(architecture=SMALL)
    with_it = found(network)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(
        fast_densenet._PackedConvolution, "__call__", lambda *_: pytest.fail("it was used")
    )
    assert furthest(found(network), with_it) < CLOSE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1e-12, -1e-12, -1.0])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.5])
def test_channels_that_are_still_or_turned_round_are_what_the_library_makes_of_them(
    dtype: torch.dtype, scale: float, shift: float
) -> None:
    """A norm that hardly scales has its limit so far off that no number format holds it."""
    network = as_if_trained(architecture=SMALL)
    for name in ("features.denseblock1.denselayer2.norm1", "features.norm5"):
        network.state[f"{name}.weight"][::2] = scale
        network.state[f"{name}.bias"][::2] = shift
    fast = FastDenseNet(SMALL, network.state, device=CPU, dtype=dtype, at_once=2, at_first=1)
    close = CLOSE if dtype == torch.float32 else 0.02
    assert furthest(sigmoids(fast(torch.from_numpy(PIXELS))), expected(network)) < close


@pytest.mark.parametrize(
    "network", [as_if_trained(architecture=SMALL), untrained(), WeightStore("").load("phantom")]
)
def test_bfloat16_comes_close(network: LoadedNetwork) -> None:
    fast = FastDenseNet(
        network.architecture,
        network.state,
        device=CPU,
        dtype=torch.bfloat16,
        at_once=2,
        at_first=1,
    )
    logits = fast(torch.from_numpy(PIXELS))
    assert logits.dtype == torch.float32
    assert furthest(sigmoids(logits), expected(network)) < 0.02


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_cores_share_the_images_and_give_back_all_in_order(threads: int) -> None:
    network = as_if_trained(architecture=SMALL)
    pixels = np.concatenate([PIXELS, PIXELS[::-1]])
    logits = Processor(network, threads, "float32")(pixels)
    assert furthest(sigmoids(torch.from_numpy(logits)), expected(network, pixels)) < CLOSE


def test_one_image_alone_has_all_threads_and_many_have_one_each() -> None:
    processor = Processor(as_if_trained(architecture=SMALL), 4, "float32")
    used: list[tuple[int, int]] = []

    def network(pixels: torch.Tensor) -> torch.Tensor:
        used.append((len(pixels), torch.get_num_threads()))
        started.wait(30)
        return pixels[:, 0, 0]

    processor._network = network  # type: ignore[assignment]
    for count, each in ((1, [(1, 4)]), (2, [(1, 2)] * 2), (5, [(1, 1)] * 3 + [(2, 1)])):
        used.clear()
        started = threading.Barrier(min(count, 4))
        processor(PIXELS[:count])
        assert sorted(used) == each


def test_weights_are_laid_out_for_a_lone_image_and_for_many_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the layout of the lone image at the start, a batch took up to a half more time."""
    laid_out: list[int] = []
    pack = fast_densenet.pack

    def counted(*arguments: Any) -> torch.Tensor:
        laid_out.append(torch.get_num_threads())
        return pack(*arguments)

    monkeypatch.setattr(fast_densenet, "pack", counted)
    processor = Processor(as_if_trained(architecture=SMALL), 2, "float32")
    processor(PIXELS[:1])
    convolutions = len(laid_out)
    assert laid_out == [2] * convolutions
    with ThreadPoolExecutor(1) as one_at_a_time:  # two at once may each lay out the same weights
        processor._workers[1] = processor._workers[0] = one_at_a_time
        processor(PIXELS)
        assert laid_out == [2] * convolutions + [1] * convolutions
        processor(PIXELS[:1])
        processor(PIXELS)
    assert len(laid_out) == 2 * convolutions


COUNT_FAULTS = """
import resource, sys
import numpy as np
from xray_watcher.model.network import untrained
from xray_watcher.model.processor import Processor

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    processor(pixels)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

processor, pixels = Processor(untrained(), 2, sys.argv[1]), np.zeros((8, 1, 224, 224), np.float32)
print(min([faults() for _ in range(6)][2:]) / len(pixels))
"""


COUNT_HELPERS = """
import os
import numpy as np
from xray_watcher.model.network import untrained
from xray_watcher.model.processor import Processor

processor, pixels = Processor(untrained(), 8, "float32"), np.zeros((8, 1, 224, 224), np.float32)
before = len(os.listdir("/proc/self/task"))
processor(pixels)
for _ in range(16):
    processor(pixels[:1])
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_lone_images_do_not_give_every_thread_helpers_of_its_own() -> None:
    """A server with many cores would run into the unit's TasksMax."""
    counted = subprocess.run([sys.executable, "-c", COUNT_HELPERS], capture_output=True, check=True)
    assert int(counted.stdout) < 8 + 12


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_one_pass_has_freed_serves_the_next_without_the_kernel(precision: str) -> None:
    """Pages fetched anew cost up to a twelfth of the time; there were 40 to 500 an image."""
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, precision], capture_output=True, check=True
    )
    assert float(counted.stdout) < 10
