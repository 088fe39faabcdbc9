"""The drawings, and the network that was trained on them."""

from __future__ import annotations

import io
import json
import os
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

from xray_watcher.core.calibration import op_norm
from xray_watcher.core.catalogue import DEFAULT_WEIGHTS, OUTPUTS, WEIGHT_SETS
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode
from xray_watcher.model.engine import load_engine
from xray_watcher.phantom.drawing import CONDITIONS, draw, frame, to_uint8, to_uint16

Floats = NDArray[np.float32]

SIDE = 256

# Where each sign lies: left, right, top, bottom as shares of the film. Drawings turn and shift.
PLACES = {
    "Atelectasis": (0.10, 0.90, 0.50, 0.85),
    "Consolidation": (0.12, 0.88, 0.35, 0.80),
    "Pneumothorax": (0.10, 0.90, 0.05, 0.85),
    "Edema": (0.10, 0.90, 0.10, 0.85),
    "Effusion": (0.08, 0.92, 0.50, 0.90),
    "Pneumonia": (0.10, 0.90, 0.20, 0.80),
    "Cardiomegaly": (0.15, 0.88, 0.20, 0.90),
    "Lung Lesion": (0.15, 0.85, 0.20, 0.70),
    "Fracture": (0.10, 0.90, 0.20, 0.85),
    "Lung Opacity": (0.10, 0.90, 0.05, 0.55),
    "Enlarged Cardiomediastinum": (0.25, 0.75, 0.05, 0.65),
}


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_conditions_are_the_labels_of_the_default_weights_in_their_order() -> None:
    assert WEIGHT_SETS[DEFAULT_WEIGHTS].labels == CONDITIONS


@pytest.mark.parametrize("condition", [None, *CONDITIONS])
def test_the_same_seed_draws_the_same_picture(condition: str | None) -> None:
    first, second = (draw(rng(1), condition, side=SIDE) for _ in range(2))
    assert np.array_equal(first, second)


def test_another_seed_draws_another_chest() -> None:
    assert np.abs(draw(rng(1), None, side=SIDE) - draw(rng(2), None, side=SIDE)).mean() > 0.02


def test_one_generator_draws_a_new_chest_each_time() -> None:
    generator = rng(1)
    first, second = (draw(generator, None, side=SIDE) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("side", [64, 200, 513])
@pytest.mark.parametrize("condition", [None, *CONDITIONS])
def test_a_picture_is_float32_in_0_to_1_at_any_size(condition: str | None, side: int) -> None:
    picture = draw(rng(3), condition, side=side)
    assert picture.dtype == np.float32
    assert picture.shape == (side, side)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.15


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(KeyError):
        draw(rng(1), "Hernia", side=SIDE)


def test_dense_tissue_is_bright_and_air_is_dark() -> None:
    picture = draw(rng(4), None, side=SIDE)
    spine = picture[int(0.45 * SIDE) : int(0.75 * SIDE), int(0.49 * SIDE) : int(0.51 * SIDE)]
    lung = picture[int(0.30 * SIDE) : int(0.45 * SIDE), int(0.27 * SIDE) : int(0.37 * SIDE)]
    assert spine.mean() > lung.mean() + 0.35


@pytest.mark.parametrize("condition", CONDITIONS)
def test_each_sign_changes_the_picture_where_it_should_and_nowhere_else(condition: str) -> None:
    left, right, top, bottom = (int(share * SIDE) for share in PLACES[condition])
    for seed in range(6):
        normal, ill = (draw(rng(5, seed), each, side=SIDE) for each in (None, condition))
        change = np.abs(ill - normal)
        assert change.max() > 0.1
        assert change[top:bottom, left:right].sum() > 0.97 * change.sum()


@pytest.mark.parametrize("condition", sorted({*CONDITIONS} - {"Pneumothorax", "Fracture"}))
def test_what_is_dense_makes_the_picture_brighter(condition: str) -> None:
    for seed in range(4):
        normal, ill = (draw(rng(6, seed), each, side=SIDE) for each in (None, condition))
        assert ill.mean() > normal.mean()


def test_a_pneumothorax_makes_one_side_darker() -> None:
    for seed in range(4):
        normal, ill = (draw(rng(7, seed), each, side=SIDE) for each in (None, "Pneumothorax"))
        darker = (normal - ill > 0.04).sum(axis=0)
        halves = sorted((darker[: SIDE // 2].sum(), darker[SIDE // 2 :].sum()))
        assert halves[1] > 0.02 * SIDE**2
        assert halves[0] < 0.1 * halves[1]


@pytest.mark.parametrize(("width", "height"), [(2000, 2500), (300, 200), (256, 256), (97, 64)])
def test_the_centre_of_a_framed_picture_is_the_picture(width: int, height: int) -> None:
    picture = draw(rng(8), None, side=SIDE)
    framed = frame(picture, width, height)
    assert framed.shape == (height, width)
    assert framed.dtype == np.float32
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    centre = framed[top : top + side, left : left + side]
    assert abs(centre.mean() - picture.mean()) < 0.01
    if side == SIDE:
        assert np.array_equal(centre, picture)
    border = framed.copy()
    border[top : top + side, left : left + side] = 0
    assert border.max() < 0.05


def test_whole_numbers_use_the_full_range_and_stay_in_it() -> None:
    picture = np.array([[-0.1, 0.0, 0.5, 1.0, 1.1]], np.float32)
    assert to_uint8(picture).tolist() == [[0, 0, 128, 255, 255]]
    assert to_uint16(picture).tolist() == [[0, 0, 32768, 65535, 65535]]
    assert to_uint8(picture).dtype == np.uint8
    assert to_uint16(picture).dtype == np.uint16


# -- the trained network ------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights_path() -> str:
    path = str(resources.files("xray_watcher.model") / "data" / "phantom.safetensors")
    assert os.path.isfile(path)
    return path


def test_the_weights_are_smaller_than_1_mb(weights_path: str) -> None:
    assert os.path.getsize(weights_path) < 1_000_000


def test_the_metadata_say_what_the_weights_are(weights_path: str) -> None:
    with safe_open(weights_path, "np") as file:
        metadata = file.metadata()
        kinds = {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
    assert kinds == {"float32"}
    assert metadata["format"] == "xray-watcher/1"
    assert metadata["name"] == "phantom"
    assert metadata["source"] == "training/train_phantom.py"
    assert metadata["seed"].isdigit()
    assert json.loads(metadata["architecture"]) == {
        "growth_rate": 8,
        "block_config": [2, 4, 6, 4],
        "num_init_features": 16,
    }
    labels, points = json.loads(metadata["labels"]), json.loads(metadata["operating_points"])
    assert labels == [label if label in CONDITIONS else "" for label in OUTPUTS]
    assert points == list(WEIGHT_SETS["phantom"].operating_points)


def as_the_service_sees_it(number: int, condition: str | None) -> Floats:
    picture = frame(draw(rng(777_001, number), condition, side=400), 400, 480)
    file = io.BytesIO()
    Image.fromarray(to_uint8(picture)).save(file, "JPEG", quality=90)
    return decode(file.getvalue(), DecodeLimits()).pixels


def test_the_network_sees_what_was_drawn() -> None:
    engine = load_engine(
        "phantom", "", "", kind="torch", threads=0, device="cpu", precision="float32"
    )
    assert engine.labels == CONDITIONS
    assert engine.info.simulated
    right = 0
    for index, condition in enumerate(CONDITIONS):
        batch = np.stack([as_the_service_sees_it(10 * index + i, condition) for i in range(10)])
        of_condition = int((calibrated(engine, batch).argmax(axis=1) == index).sum())
        assert of_condition >= 9, condition
        right += of_condition
    assert right >= 107
    normals = np.stack([as_the_service_sees_it(1000 + i, None) for i in range(20)])
    assert (calibrated(engine, normals) < 0.5).all(axis=1).sum() >= 19


def calibrated(engine: object, batch: Floats) -> NDArray[np.float64]:
    raw = engine.classify(batch)  # type: ignore[attr-defined]
    points = engine.operating_points  # type: ignore[attr-defined]
    return np.array(
        [[op_norm(float(s), p) for s, p in zip(row, points, strict=True)] for row in raw]
    )
