"""`core.retention`: what may go, and what stays whatever is set."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.retention import (
    DAY_US,
    RetentionRules,
    believed_us,
    images_before_us,
    is_log_due,
    log_day,
    witnessed_us,
)

NOW = 1000 * DAY_US


def rules(high: int = 0, logs: int = 0, keep_days: int = 1, keep_images: int = 0) -> RetentionRules:
    return RetentionRules({"High": high}, logs, keep_days, keep_images)


@pytest.mark.parametrize(
    ("set_to", "newest_kept_us", "before_us"),
    [
        (rules(), None, None),
        (rules(high=90), None, 910 * DAY_US),
        (rules(high=90, keep_days=100), None, 900 * DAY_US),
        (rules(high=90, keep_images=5), None, None),
        (rules(high=90, keep_images=5), 950 * DAY_US, 910 * DAY_US),
        (rules(high=90, keep_images=5), 500 * DAY_US, 500 * DAY_US),
    ],
)
def test_an_image_goes_by_age_and_never_below_the_floor(
    set_to: RetentionRules, newest_kept_us: int | None, before_us: int | None
) -> None:
    assert images_before_us(set_to, "High", NOW, newest_kept_us) == before_us
    assert images_before_us(set_to, "Low", NOW, newest_kept_us) is None


@given(
    st.lists(st.integers(0, 1000), max_size=60),
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(0, 50),
)
def test_the_newest_and_the_young_stay(
    filed_days: list[int], days: int, keep_days: int, keep_images: int
) -> None:
    filed = sorted((day * DAY_US for day in filed_days), reverse=True)
    newest_kept = filed[keep_images - 1] if 0 < keep_images <= len(filed) else None
    set_to = rules(high=days, keep_days=keep_days, keep_images=keep_images)
    before_us = images_before_us(set_to, "High", NOW, newest_kept)
    gone = [at for at in filed if before_us is not None and at < before_us]
    assert all(NOW - at > max(days, keep_days) * DAY_US for at in gone)
    assert len(filed) - len(gone) >= min(len(filed), keep_images)
    if not keep_images:
        assert gone == [at for at in filed if NOW - at > max(days, keep_days) * DAY_US]


def test_a_log_goes_by_the_day_in_its_name() -> None:
    assert log_day("results-2026-11-23.2") == "2026-11-23"
    assert not is_log_due(rules(), "results-2020-01-01", "2026-11-23")
    assert is_log_due(rules(logs=30), "results-2026-10-24.2", "2026-11-23")
    assert not is_log_due(rules(logs=30), "results-2026-10-25", "2026-11-23")
    assert not is_log_due(rules(logs=30, keep_days=60), "results-2026-10-01", "2026-11-23")


@pytest.mark.parametrize(
    ("now_day", "last_day", "believed_day"),
    [
        (1000, 999, 1000),  # an ordinary day
        (1000, 998, 1000),
        (1000, 1000, 1000),
        (2826, 1000, 1002),  # the clock has jumped five years ahead
        (1021, 1000, 1002),  # or the service was off for three weeks: two days a run
        (400, 1000, 400),  # a clock that is behind makes everything younger
    ],
)
def test_the_believed_time_advances_by_at_most_two_days_a_run(
    now_day: int, last_day: int, believed_day: int
) -> None:
    assert believed_us(now_day * DAY_US, last_day * DAY_US) == believed_day * DAY_US


def test_a_service_that_was_off_for_three_weeks_has_caught_up_after_three() -> None:
    believed = [1000 * DAY_US]
    for run in range(22):
        believed.append(believed_us((1021 + run) * DAY_US, believed[-1]))
    behind_days = [1021 + run - at // DAY_US for run, at in enumerate(believed[1:])]
    assert behind_days == [*range(19, 0, -1), 0, 0, 0]


@pytest.mark.parametrize(
    ("days", "witnessed_day"),
    [
        (["2026-11-23"], "2026-11-23"),
        (["2026-11-23", "2026-11-24", "2026-11-27"], "2026-11-27"),
        (["2026-11-23", "2026-11-30", "2026-12-07"], "2026-12-07"),  # one a week
        (["2026-11-23", "2031-11-23", "2031-11-24"], "2026-12-01"),  # the clock jumped
        (["2026-07-31", "2026-09-01"], "2026-08-07"),  # or the clinic was closed
    ],
)
def test_images_are_witnesses_of_the_days_between_them_and_of_a_week_in_a_gap(
    days: list[str], witnessed_day: str
) -> None:
    midnight = datetime.fromisoformat(f"{witnessed_day}T00:00+00:00")
    assert witnessed_us(days) == int(midnight.timestamp()) * 1_000_000
    assert witnessed_us([]) is None


def test_it_is_off_when_nothing_is_set() -> None:
    assert rules().is_off
    assert not rules(high=1).is_off
    assert not rules(logs=1).is_off
