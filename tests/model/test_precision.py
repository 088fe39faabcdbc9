"""`model.torch_engine`, `model.precision_check`, `model.cuda`: number formats and devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SMALL, as_if_trained

from xray_watcher.core.catalogue import UNTRAINED
from xray_watcher.errors import ConfigError
from xray_watcher.model import processor, torch_engine
from xray_watcher.model.cuda import Halving
from xray_watcher.model.precision_check import MOST, built_in_images, disagreement
from xray_watcher.model.processor import has_bfloat16
from xray_watcher.model.torch_engine import TorchEngine

LABELS = len(UNTRAINED.labels)
Floats = np.ndarray
Classify = Callable[[Floats], Floats]


def raw_for(score: float, label: int) -> float:
    """The sigmoid that is calibrated to a score of at least 0.5."""
    point = UNTRAINED.trained_points[label]
    return 1 - 2 * (1 - score) * (1 - point)


def scoring(*scores: float) -> Classify:
    """A network that gives every image these scores, and the other labels 0."""
    row = np.zeros(LABELS)
    row[: len(scores)] = [raw_for(score, label) for label, score in enumerate(scores)]
    return lambda images: np.tile(row, (len(images), 1))


@pytest.mark.parametrize(
    ("quick", "wrong"),
    [
        ((0.9, 0.7), None),
        ((0.9 - MOST * 0.9, 0.7), None),
        ((0.9, 0.7 + MOST * 1.1), "moves the score of Consolidation by 0.022"),
        ((float("nan"), 0.7), "not numbers"),
    ],
)
def test_a_score_may_move_by_two_hundredths(quick: tuple[float, ...], wrong: str | None) -> None:
    found = disagreement(UNTRAINED, scoring(0.9, 0.7), scoring(*quick))
    assert (found is None) == (wrong is None)
    assert wrong is None or wrong in str(found)


def test_the_top_condition_may_change_only_among_scores_that_are_close() -> None:
    close = disagreement(UNTRAINED, scoring(0.80, 0.79), scoring(0.79, 0.80))
    apart = disagreement(UNTRAINED, scoring(0.830, 0.805), scoring(0.815, 0.820))
    assert close is None
    assert apart == "changes the top condition Atelectasis"


def test_the_built_in_images_are_twelve_different_ones_in_range() -> None:
    images = built_in_images()
    assert images.shape == (12, 1, 224, 224)
    assert images.dtype == np.float32
    assert -1024 <= images.min() < -900 < 500 < images.max() <= 1024
    assert len({image.tobytes() for image in images}) == 12


def engine(precision: str, device: str = "cpu") -> TorchEngine:
    network = as_if_trained(architecture=SMALL)
    return TorchEngine(network, threads=1, device=device, precision=precision)


def test_the_records_say_which_precision_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "has_bfloat16", lambda: True)
    assert engine("auto").info.precision == "float32"
    assert engine("float32").info.precision == "float32"
    assert engine("bfloat16").info.precision == "bfloat16"


def test_bfloat16_is_refused_where_the_processor_does_not_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_engine, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match='set precision = "float32"') as raised:
        engine("bfloat16")
    assert raised.value.exit_code == 78


def test_bfloat16_is_refused_when_it_moves_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "has_bfloat16", lambda: True)
    right = processor.Processor.__call__

    def wrong(self: processor.Processor, pixels: Floats) -> Floats:
        return right(self, pixels) + (0.5 if self.precision == "bfloat16" else 0.0)

    monkeypatch.setattr(processor.Processor, "__call__", wrong)
    with pytest.raises(ConfigError, match="untrained bfloat16 moves the score of"):
        engine("bfloat16")


@pytest.mark.parametrize(
    ("flags", "has"),
    [("fpu avx512_bf16 sse", True), ("fpu amx_bf16", True), ("fpu avx512f", False)],
)
def test_the_processor_says_what_it_has(
    flags: str, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t: {flags}\n")
    monkeypatch.setattr(processor, "CPU_FACTS", str(tmp_path / "cpuinfo"))
    assert has_bfloat16() is has


# -- a CUDA device that is not there --------------------------------------------------------


def test_a_device_that_is_not_there_is_refused_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engine("auto", device="auto").info.precision == "float32"
    with pytest.raises(ConfigError, match="no CUDA device"):
        engine("auto", device="cuda")


class FakeCuda(processor.Processor):
    """Computes on the processor what a device would, as wrong by `off` in half precision."""

    off = 0.0

    def __init__(self, network: object, precision: str) -> None:
        super().__init__(network, 1, "float32")  # type: ignore[arg-type]
        self.precision = precision  # type: ignore[assignment]

    def __call__(self, pixels: Floats) -> Floats:
        return super().__call__(pixels) + (self.off if self.precision == "float16" else 0.0)


@pytest.mark.parametrize(("off", "precision"), [(0.0, "float16"), (1.0, "float32")])
def test_a_device_computes_in_half_precision_if_that_holds(
    off: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_engine, "Cuda", FakeCuda)
    monkeypatch.setattr(FakeCuda, "off", off)
    assert engine("auto", device="auto").info.precision == precision


@pytest.mark.parametrize("room", [0, 1])
def test_a_device_that_another_program_has_filled_is_done_without(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = iter([FakeCuda] * room)

    def cuda(network: object, precision: str) -> FakeCuda:
        if (copy := next(copies, None)) is None:
            raise torch.OutOfMemoryError("out of memory")
        return copy(network, precision)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_engine, "Cuda", cuda)
    made = engine("auto", device="auto")
    assert made.info.precision == "float32"
    assert type(made._forward) is (processor.Processor, Halving)[room]


class Small:
    """A device with memory for so many images."""

    precision = "float16"

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, pixels: Floats) -> Floats:
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        self.sizes.append(len(pixels))
        return pixels[:, 0, 0, :1]


class Roomy(Small):
    precision = "float32"


IMAGES = np.arange(20, dtype=np.float32).reshape(20, 1, 1, 1)


def test_without_memory_half_as_many_go_at_once_and_it_stays_so() -> None:
    device = Small(room=5)
    halving = Halving(device, lambda: pytest.fail("not needed"), at_once=16)  # type: ignore[arg-type]
    assert np.array_equal(halving(IMAGES), IMAGES[:, 0, 0])
    assert device.sizes == [4, 4, 4, 4, 4]
    halving(IMAGES)
    assert len(device.sizes) == 10
    assert halving.precision == "float16"


def test_without_memory_for_one_image_the_processor_takes_over() -> None:
    room_goes, elsewhere = Small(room=5), Roomy(room=100)
    halving = Halving(room_goes, lambda: elsewhere, at_once=4)  # type: ignore[arg-type]
    halving(IMAGES[:8])
    room_goes.room = 0
    assert np.array_equal(halving(IMAGES), IMAGES[:, 0, 0])
    assert elsewhere.sizes == [20]
    assert halving.precision == "float32"
