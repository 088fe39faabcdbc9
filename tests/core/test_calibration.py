"""`core.calibration`: the library's scaling to operating points, once, and nothing but numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.calibration import op_norm, scores

POINTS = st.floats(0.0001, 0.9999)
SCORES = st.floats(0, 1)


@given(point=POINTS)
def test_the_operating_point_becomes_a_half_and_the_ends_stay(point: float) -> None:
    assert op_norm(point, point) == pytest.approx(0.5)
    assert op_norm(0.0, point) == 0.0
    assert op_norm(1.0, point) == 1.0


@given(point=POINTS, one=SCORES, other=SCORES)
def test_a_higher_score_never_becomes_a_lower_one(point: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= op_norm(low, point) <= op_norm(high, point) <= 1


def test_known_values() -> None:
    assert op_norm(0.1, 0.2) == pytest.approx(0.25)
    assert op_norm(0.6, 0.2) == pytest.approx(0.75)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.01, 1.01])
def test_a_score_that_is_no_number_from_0_to_1_is_a_failure(bad: float) -> None:
    with pytest.raises(ValueError, match="score"):
        scores(("Edema", "Effusion"), (0.5, bad), (0.2, 0.2))


def test_labels_raw_and_calibrated_scores_stay_in_order() -> None:
    found = scores(("Edema", "Effusion"), (0.1, 0.6), (0.2, 0.2))
    assert found.labels == ("Edema", "Effusion")
    assert found.raw == (0.1, 0.6)
    assert found.calibrated == pytest.approx((0.25, 0.75))
