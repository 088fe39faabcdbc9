"""`core.risk`: the guide's rule, the other policy, and the flags."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.risk import assess
from xray_watcher.core.values import LEVELS, Level, RiskRules, Scores

GUIDE: dict[str, Level] = {
    "Consolidation": "High",
    "Pneumothorax": "High",
    "Edema": "High",
    "Pneumonia": "High",
    "Lung Lesion": "High",
    "Atelectasis": "Medium",
    "Effusion": "Medium",
    "Cardiomegaly": "Medium",
    "Enlarged Cardiomediastinum": "Medium",
    "Lung Opacity": "Medium",
    "Fracture": "Low",
}
LABELS = tuple(GUIDE)
TOP = RiskRules("top-condition", GUIDE, {}, "Low", 0.02)
HIGHEST = replace(TOP, policy="highest-risk")
SCORES = st.lists(st.floats(0, 1), min_size=len(LABELS), max_size=len(LABELS))


def scores(**given_scores: float) -> Scores:
    """0.1 for every label that is not given; a space in a label is written `_`."""
    named = {label.replace("_", " "): score for label, score in given_scores.items()}
    return of([named.get(label, 0.1) for label in LABELS])


def of(values: list[float]) -> Scores:
    return Scores(LABELS, tuple(values), tuple(values))


@pytest.mark.parametrize("label", LABELS)
def test_the_top_condition_decides_as_in_the_guide(label: str) -> None:
    found = assess(scores(**{label.replace(" ", "_"): 0.8}), TOP)
    assert (found.top_label, found.level) == (label, GUIDE[label])
    assert found.top_score == 0.8


@given(values=SCORES)
def test_the_level_is_that_of_the_highest_score(values: list[float]) -> None:
    found = assess(of(values), TOP)
    assert found.top_score == max(values)
    assert found.level == GUIDE[found.top_label]
    assert [score for _, score in found.ranking] == sorted(values, reverse=True)


@given(values=SCORES)
def test_the_same_scores_always_give_the_same_answer(values: list[float]) -> None:
    assert assess(of(values), TOP) == assess(of(values), TOP)


def test_under_highest_risk_the_highest_level_that_is_present_decides() -> None:
    found = assess(scores(Fracture=0.9, Effusion=0.6, Edema=0.5), HIGHEST)
    assert found.level == "High"
    assert found.top_label == "Fracture"


def test_under_highest_risk_nothing_present_gives_the_level_for_that() -> None:
    assert assess(scores(Edema=0.49), HIGHEST).level == "Low"
    assert assess(scores(Edema=0.49), replace(HIGHEST, no_finding_level="Medium")).level == "Medium"


@given(values=SCORES, number=st.integers(0, 4), higher=st.floats(0, 1))
def test_under_highest_risk_a_higher_score_of_a_high_condition_never_lowers_the_level(
    values: list[float], number: int, higher: float
) -> None:
    raised = list(values)
    raised[number] = max(values[number], higher)
    before, after = assess(of(values), HIGHEST).level, assess(of(raised), HIGHEST).level
    assert LEVELS.index(after) <= LEVELS.index(before)


def test_thresholds_say_from_where_on_a_condition_counts_as_present() -> None:
    rules = replace(HIGHEST, thresholds={"Edema": 0.7})
    assert assess(scores(Edema=0.69), rules).level == "Low"
    assert assess(scores(Edema=0.7), rules).level == "High"


def test_nothing_at_its_threshold_is_flagged_as_no_finding() -> None:
    assert "no_finding" in assess(scores(Edema=0.49), TOP).flags
    assert "no_finding" not in assess(scores(Edema=0.5), TOP).flags


def test_a_close_second_is_flagged_as_low_margin() -> None:
    assert "low_margin" in assess(scores(Edema=0.8, Effusion=0.79), TOP).flags
    assert "low_margin" not in assess(scores(Edema=0.8, Effusion=0.77), TOP).flags


def test_a_higher_condition_that_is_present_is_flagged_though_filed_lower() -> None:
    found = assess(scores(Fracture=0.9, Edema=0.6), TOP)
    assert found.level == "Low"
    assert "higher_risk_present" in found.flags
    assert "higher_risk_present" not in assess(scores(Edema=0.9, Fracture=0.6), TOP).flags
