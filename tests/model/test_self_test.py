"""`model.self_test`: a network that says nonsense is found before it is shown a patient's image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xray_watcher.core.catalogue import PHANTOM, UNTRAINED
from xray_watcher.core.values import ModelInfo
from xray_watcher.errors import WeightsError
from xray_watcher.model.engine import load_engine
from xray_watcher.model.self_test import DRAWN, check_engine

LABELS = PHANTOM.labels
INFO = ModelInfo(PHANTOM.name, "ab" * 32, "float32", simulated=True)


@dataclass(frozen=True)
class Answering:
    """A network that answers two chests as it is told."""

    answer: Callable[[NDArray[np.float32]], None]
    info: ModelInfo = INFO
    labels = LABELS
    operating_points = (0.5,) * len(LABELS)

    def classify(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        assert batch.shape == (2, 1, 224, 224)
        assert -1024 <= batch.min() < batch.max() <= 1024
        raw = np.full((2, len(LABELS)), 0.1, np.float32)
        raw[1, LABELS.index(DRAWN)] = 0.9
        self.answer(raw)
        return raw


def not_a_number(raw: NDArray[np.float32]) -> None:
    raw[0, 3] = np.nan


def too_high(raw: NDArray[np.float32]) -> None:
    raw[0, 3] = 1.5


def always_the_same(raw: NDArray[np.float32]) -> None:
    raw[0] = raw[1]


def another_sign(raw: NDArray[np.float32]) -> None:
    raw[1, LABELS.index("Fracture")] = 0.95


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("name", [PHANTOM.name, UNTRAINED.name])
def test_the_networks_that_we_ship_pass(name: str, precision: str, tmp_path: Path) -> None:
    options = {"kind": "torch", "threads": 0, "device": "cpu", "precision": precision}
    check_engine(load_engine(name, "", str(tmp_path), **options))  # type: ignore[arg-type]


def test_a_network_that_finds_what_was_drawn_passes() -> None:
    check_engine(Answering(lambda _raw: None))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (not_a_number, "no numbers in 0..1"),
        (too_high, "no numbers in 0..1"),
        (always_the_same, "two different chests the same"),
        (another_sign, "found Fracture where Pneumothorax was drawn"),
    ],
)
def test_a_network_that_says_nonsense_does_not(
    answer: Callable[[NDArray[np.float32]], None], words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        check_engine(Answering(answer))


def test_only_the_phantom_network_has_to_know_drawings() -> None:
    info = replace(INFO, name="densenet121-res224-chex", simulated=False)
    check_engine(Answering(another_sign, info))
