"""`core.health`: each cause backs off by itself, from one second to a minute."""

from __future__ import annotations

from xray_watcher.core.health import Health


def test_a_cause_is_new_once_and_tried_again_after_a_growing_delay() -> None:
    health = Health()
    assert health.failed("disk", "full", 100.0)
    assert not health.may_try("disk", 100.9)
    assert health.may_try("disk", 101.0)
    assert not health.failed("disk", "full", 101.0)
    assert not health.may_try("disk", 102.9)
    assert health.may_try("disk", 103.0)


def test_the_delay_never_grows_beyond_a_minute() -> None:
    health = Health()
    for attempt in range(20):
        health.failed("disk", "full", 1000.0 * attempt)
    assert health.next_retry_s() == 19_060.0


def test_causes_are_tried_and_recover_each_by_itself() -> None:
    health = Health()
    health.failed("disk", "full", 100.0)
    assert health.may_try("inbox", 100.0)
    assert health.recovered("disk")
    assert not health.recovered("disk")
    assert not health.troubles
    assert health.next_retry_s() is None


def test_the_last_error_is_remembered_after_it_is_gone() -> None:
    health = Health()
    health.failed("disk", "The disk is full.", 100.0)
    health.recovered("disk")
    assert health.last_error == "The disk is full."


def test_a_try_that_told_nothing_is_followed_soon_and_changes_no_delay() -> None:
    health = Health()
    health.failed("work", "full", 0.0)
    health.failed("work", "full", 1.0)
    health.try_soon("work", 3.0)
    assert not health.may_try("work", 3.9)
    assert health.may_try("work", 4.0)
    assert (health.troubles["work"].since_s, health.troubles["work"].delay_s) == (0.0, 2.0)
