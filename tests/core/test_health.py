"""`core.health`: each cause backs off by itself, from one second to a minute."""

from __future__ import annotations

import math

from xray_watcher.core.health import HealthTracker


def test_a_cause_is_new_once_and_tried_again_after_a_growing_delay() -> None:
    health = HealthTracker()
    assert health.failed("disk", "full", 100.0)
    assert not health.may_try("disk", 100.9)
    assert health.may_try("disk", 101.0)
    assert not health.failed("disk", "full", 101.0)
    assert not health.may_try("disk", 102.9)
    assert health.may_try("disk", 103.0)


def test_the_delay_never_grows_beyond_a_minute() -> None:
    health = HealthTracker()
    for attempt in range(20):
        health.failed("disk", "full", 1000.0 * attempt)
    assert health.next_retry_s() == 19_060.0


def test_causes_are_tried_and_recover_each_by_itself() -> None:
    health = HealthTracker()
    health.failed("disk", "full", 100.0)
    assert health.may_try("inbox", 100.0)
    assert health.recovered("disk")
    assert not health.recovered("disk")
    assert not health.problems
    assert health.next_retry_s() is None


def test_the_last_error_is_remembered_after_it_is_gone() -> None:
    health = HealthTracker()
    health.failed("disk", "The disk is full.", 100.0)
    health.recovered("disk")
    assert health.last_error == "The disk is full."


def test_a_state_that_is_looked_at_in_each_turn_is_new_once_and_has_no_next_try() -> None:
    health = HealthTracker()
    assert health.note("files", "1 image waits", 100.0)
    assert not health.note("files", "2 images wait", 101.0)
    assert (health.problems["files"].reason, health.problems["files"].since_s) == (
        "2 images wait",
        100.0,
    )
    assert health.next_retry_s() == math.inf


def test_a_unit_that_fails_by_another_cause_is_told_anew() -> None:
    health = HealthTracker()
    assert health.failed("work", "full", 0.0, "folders")
    assert health.failed("work", "also full", 1.0, "logs")
    assert list(health.reasons) == ["logs"]
    assert health.problems["work"].delay_s == 2.0
