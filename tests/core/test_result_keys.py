"""`core.result_keys`: what the list of results is filtered and sorted by."""

from __future__ import annotations

from dataclasses import replace

from test_tally import RECORD

from xray_watcher.core.image_record import RiskLevel
from xray_watcher.core.result_keys import (
    FLAGS,
    condition_bit,
    condition_place,
    flag_bit,
    folded,
    ranks_of,
    result_keys,
)
from xray_watcher.web.pages.views import FLAG_WORDS

LEVELS: tuple[RiskLevel, ...] = ("High", "Medium", "Low", "Rejected")


def rank(level: RiskLevel, score: float, *flags: str) -> int:
    record = replace(RECORD, risk_level=level, top_probability=score, flags=flags)
    return result_keys(record, {}).rank


def test_level_goes_before_finding_and_finding_before_score() -> None:
    ranks = [
        rank("High", 1.0), rank("High", 0.51), rank("High", 0.509999),
        rank("High", 0.9, "no_finding"), rank("High", 0.02, "no_finding"),
        rank("Medium", 1.0), rank("Medium", 0.999, "no_finding"),
        rank("Low", 0.5), rank("Low", 0.0, "no_finding"),
        result_keys(replace(RECORD, risk_level="Rejected", top_probability=None), {}).rank,
    ]  # fmt: skip
    assert ranks == sorted(ranks, reverse=True)
    assert len({*ranks}) == len(ranks)


def test_every_rank_belongs_to_its_level_and_to_no_other() -> None:
    for level in LEVELS:
        for score in (0.0, 0.5, 1.0):
            for flags in ((), ("no_finding",)):
                found = rank(level, score, *flags)
                holds = [each for each in LEVELS if ranks_of(each)[0] <= found <= ranks_of(each)[1]]
                assert holds == [level]


def test_a_condition_is_present_from_its_own_threshold() -> None:
    record = replace(RECORD, all_probs={"Edema": 0.5, "Fracture": 0.49, "Pneumonia": 0.7})
    assert result_keys(record, {}).present == condition_bit("Edema") + condition_bit("Pneumonia")
    keys = result_keys(record, {"Edema": 0.51, "Fracture": 0.49})
    assert keys.present == condition_bit("Fracture") + condition_bit("Pneumonia")
    assert keys.top == condition_place("Edema")


def test_what_nobody_knows_is_nothing() -> None:
    record = replace(RECORD, top_label="New", all_probs={"New": 0.9}, flags=("new", "low_margin"))
    keys = result_keys(record, {})
    assert (keys.top, keys.present, keys.flags) == (-1, 0, flag_bit("low_margin"))


def test_every_flag_has_a_bit_and_words() -> None:
    assert [*FLAG_WORDS] == [*FLAGS]
    assert [flag_bit(flag) for flag in FLAGS] == [1, 2, 4, 8, 16, 32]


def test_a_name_is_found_in_any_case_and_however_its_accents_are_encoded() -> None:
    assert folded("\u0398\u03ce\u03c1\u03b1\u03ba\u03b1\u03c2.PNG") == folded(
        "\u03b8\u03c9\u0301\u03c1\u03b1\u03ba\u03b1\u03a3.png"
    )
    assert folded("STRASSE") == folded("stra\u00dfe")
