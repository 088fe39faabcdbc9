"""From the file to the top label: the library's own numbers, whatever the file form."""

from __future__ import annotations

import numpy as np
import pictures
import pytest

import parity
from xray_watcher.core.calibration import scores
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode
from xray_watcher.model.engine import Engine, load_engine
from xray_watcher.phantom.drawing import CONDITIONS, draw, to_uint8


@pytest.fixture(scope="module")
def rows() -> list[parity.Row]:
    return parity.compared(parity.cases())


@pytest.fixture(scope="module")
def phantom() -> Engine:
    return load_engine(
        "phantom", "", "", kind="torch", threads=0, device="cpu", precision="float32"
    )


def test_every_file_gives_the_library_s_input_and_top_label(rows: list[parity.Row]) -> None:
    assert len(rows) >= 12
    assert all(parity.is_kept(row) for row in rows), parity.table(rows)


def calibrated(engine: Engine, content: bytes) -> np.ndarray:
    pixels = decode(content, DecodeLimits()).pixels
    raw = engine.classify(pixels[np.newaxis])[0].tolist()
    return np.array(scores(engine.labels, raw, engine.operating_points).calibrated)


@pytest.mark.parametrize("condition", [None, *CONDITIONS])
def test_one_picture_has_the_same_scores_in_every_file_form(
    phantom: Engine, condition: str | None
) -> None:
    grey = to_uint8(draw(np.random.default_rng(11), condition, side=512))
    plain = calibrated(phantom, pictures.png(parity.pictures.Image.fromarray(grey)))
    forms = {
        **pictures.lossless(grey),
        **{f"JPEG {name}": content for name, content in pictures.lossy(grey).items()},
        "turned": pictures.turned(grey, 6, as_jpeg=False),
        "turned JPEG": pictures.turned(grey, 8, as_jpeg=True),
    }
    for name, content in forms.items():
        found = calibrated(phantom, content)
        allowed = 0.01 if "16 bits" in name else 0.02
        assert np.abs(found - plain).max() <= allowed, name
        if condition is not None:
            assert phantom.labels[int(found.argmax())] == condition, name
