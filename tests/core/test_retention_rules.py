"""`core.retention`: what may go, and what stays whatever is set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.retention import (
    DAY_S,
    DAY_US,
    ClockWatch,
    RetentionRules,
    images_before_us,
    log_day,
    log_goes,
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
    assert not log_goes(rules(), "results-2020-01-01", "2026-11-23")
    assert log_goes(rules(logs=30), "results-2026-10-24.2", "2026-11-23")
    assert not log_goes(rules(logs=30), "results-2026-10-25", "2026-11-23")
    assert not log_goes(rules(logs=30, keep_days=60), "results-2026-10-01", "2026-11-23")


def test_a_clock_is_doubted_when_it_has_gone_further_than_time_has() -> None:
    watch = ClockWatch(0, 1000 * DAY_S, ahead_s=0, waited_s=0)
    watch.look(100 * DAY_S, 1102 * DAY_S)
    watch.look(101 * DAY_S, 1105 * DAY_S)
    assert not watch.is_doubted, "twice two days are a computer that sleeps"
    watch.look(102 * DAY_S, 1110 * DAY_S)
    assert watch.is_doubted, "a day before the jump is no part of the wait"
    watch.look(102.5 * DAY_S, 1110.5 * DAY_S)
    assert watch.is_doubted
    watch.look(103 * DAY_S, 1111 * DAY_S)
    assert not watch.is_doubted
    watch.believe()
    watch.look(103.1 * DAY_S, 1115 * DAY_S)
    assert watch.is_doubted


def test_a_clock_that_is_put_right_is_doubted_no_longer() -> None:
    watch = ClockWatch(0, 1000 * DAY_S, ahead_s=300 * DAY_S, waited_s=DAY_S / 2)
    assert watch.is_doubted
    watch.look(60, 700 * DAY_S)
    assert (watch.is_doubted, watch.waited_s) == (False, 0)


def test_it_is_off_when_nothing_is_set() -> None:
    assert rules().is_off
    assert not rules(high=1).is_off
    assert not rules(logs=1).is_off
