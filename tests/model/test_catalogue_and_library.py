"""`core.catalogue` against the installed library: names, labels, points, addresses."""

from __future__ import annotations

import math

import pytest

from xray_watcher.core.catalogue import OUTPUTS, PUBLISHED, WeightSet
from xray_watcher.model.network import library


def test_the_outputs_are_in_the_order_of_the_library() -> None:
    assert list(OUTPUTS) == library().datasets.default_pathologies


def test_every_densenet121_at_224_pixels_is_in_the_catalogue() -> None:
    theirs = {name for name in library().models.model_urls if name.startswith("densenet121-res224")}
    assert theirs == {weights.name for weights in PUBLISHED}


@pytest.mark.parametrize("weights", PUBLISHED, ids=lambda weights: weights.name)
def test_labels_points_and_address_are_the_library_s(weights: WeightSet) -> None:
    theirs = library().models.model_urls[weights.name]
    assert weights.url == theirs["weights_url"]
    labels = [
        label if point is not None else ""
        for label, point in zip(OUTPUTS, weights.operating_points, strict=True)
    ]
    assert labels == theirs["labels"]
    for ours, other in zip(weights.operating_points, theirs["op_threshs"], strict=True):
        assert math.isnan(other) if ours is None else ours == pytest.approx(other)
