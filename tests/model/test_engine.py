"""`model.engine`: the numbers are those of TorchXRayVision on the same weights."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from checkpoints import FORMS, library_network

from xray_watcher.core.calibration import scores
from xray_watcher.core.catalogue import OUTPUTS, PUBLISHED, UNTRAINED
from xray_watcher.core.values import Scores
from xray_watcher.model.engine import Engine, load_engine
from xray_watcher.model.network import library

PIXELS = np.random.default_rng(4).uniform(-1024, 1024, (3, 1, 224, 224)).astype(np.float32)


def load(name: str, folder: Path, file: str = "") -> Engine:
    return load_engine(
        name, file, str(folder), kind="torch", threads=0, device="cpu", precision="float32"
    )


@pytest.fixture(scope="module")
def xrv() -> ModuleType:
    return library()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {form: save(library_network(), folder / form) for form, save in FORMS.items()}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load("untrained", tmp_path_factory.mktemp("none"))


def as_the_library_has_it(xrv: ModuleType, name: str, file: Path, cache: Path) -> np.ndarray:
    """The library's own scores, with the weights taken from its own cache."""
    url = xrv.models.model_urls[name]["weights_url"]
    os.link(file, cache / os.path.basename(url))
    network = xrv.models.DenseNet(weights=name, cache_dir=str(cache))
    with torch.inference_mode():
        found: np.ndarray = network(torch.from_numpy(PIXELS)).numpy()
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weights", PUBLISHED, ids=lambda weights: weights.name)
def test_scores_are_those_of_the_library_for_every_set_and_file_form(
    xrv: ModuleType,
    files: dict[str, Path],
    weights: object,
    form: str,
    tmp_path: Path,
) -> None:
    name = weights.name  # type: ignore[attr-defined]
    expected = as_the_library_has_it(xrv, name, files[form], tmp_path)
    engine = load(name, tmp_path, str(files[form]))
    for raw, row in zip(engine.classify(PIXELS), expected, strict=True):
        found = scores(engine.labels, raw.tolist(), engine.operating_points)
        assert found.labels == tuple(
            label for label in xrv.models.model_urls[name]["labels"] if label
        )
        for label, score in zip(found.labels, found.calibrated, strict=True):
            assert score == pytest.approx(float(row[OUTPUTS.index(label)]), abs=1e-5)


def test_an_image_scores_the_same_alone_and_in_a_batch(untrained: Engine) -> None:
    together = untrained.classify(PIXELS)
    alone = np.concatenate([untrained.classify(PIXELS[n : n + 1]) for n in range(3)])
    assert np.abs(together - alone).max() < 1e-5
    assert together.shape == (3, len(UNTRAINED.labels))
    assert together.dtype == np.float32


def test_one_sigmoid_is_applied_and_raw_scores_use_the_whole_range(untrained: Engine) -> None:
    raw = untrained.classify(PIXELS)
    assert 0 <= raw.min() < 0.4  # a second sigmoid would leave nothing below 0.5
    assert raw.max() <= 1


def test_untrained_weights_are_the_same_every_time_and_say_that_they_mean_nothing(
    untrained: Engine, tmp_path: Path
) -> None:
    again = load("untrained", tmp_path)
    assert again.info == untrained.info
    assert again.info.simulated
    assert np.array_equal(again.classify(PIXELS), untrained.classify(PIXELS))


def test_loading_leaves_the_random_numbers_of_others_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load("untrained", tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_the_engine_never_shows_an_output_without_a_name(untrained: Engine) -> None:
    assert untrained.labels == UNTRAINED.labels
    assert len(untrained.operating_points) == len(untrained.labels) == 11
    found = scores(untrained.labels, untrained.classify(PIXELS)[0].tolist(), (0.5,) * 11)
    assert isinstance(found, Scores)
