"""`core.retries`: one table for all images that are tried again; time is a literal."""

from __future__ import annotations

import math

from xray_watcher.core.retries import (
    COMPONENTS,
    GIVEN_UP,
    LONGEST_DELAY_S,
    REASONS,
    Key,
    Reason,
    Retries,
)

KEY: Key = ("claimed", 7)
BROKEN = Reason("unreadable", "Input/output error")


def test_the_wait_doubles_with_each_failure_up_to_a_minute() -> None:
    retries = Retries()
    waits = [retries.failed(KEY, "a.jpg", BROKEN, 100.0).delay_s for _ in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert LONGEST_DELAY_S == 60


def test_an_image_is_due_when_its_wait_is_over_and_not_before() -> None:
    retries = Retries()
    retries.failed(KEY, "a.jpg", BROKEN, 100.0)
    assert retries.due("claimed", 100.9) == []
    assert retries.due("claimed", 101.0) == [KEY]
    assert retries.next_due_s("claimed") == 101.0
    assert retries.next_due_s("inbox") is None


def test_an_image_that_is_being_tried_is_not_due_and_keeps_its_history() -> None:
    retries = Retries()
    retries.failed(KEY, "a.jpg", BROKEN, 100.0)
    retries.begin(KEY)
    assert retries.next_due_s("claimed") == math.inf
    retry = retries.failed(KEY, "a.jpg", BROKEN, 105.0)
    assert (retry.since_s, retry.tries, retry.due_s) == (100.0, 2, 107.0)


def test_an_image_that_only_waits_for_its_turn_is_due_at_once_and_is_no_failure() -> None:
    retries = Retries()
    retries.queue(KEY, "a.jpg", 100.0)
    assert retries.due("claimed", 100.0) == [KEY]
    assert not list(retries.failures())
    retry = retries.failed(KEY, "a.jpg", BROKEN, 200.0)
    assert (retry.since_s, retry.tries) == (200.0, 1), "waiting was no failure"


def test_a_failed_image_that_is_queued_again_is_due_at_once_and_keeps_its_history() -> None:
    retries = Retries()
    retries.failed(KEY, "a.jpg", BROKEN, 100.0)
    retries.begin(KEY)
    retries.queue(KEY, "a.jpg", 101.0)
    assert retries.due("claimed", 101.0) == [KEY]
    assert [retry.tries for _, retry in retries.failures()] == [1]


def test_an_image_that_went_on_is_forgotten() -> None:
    retries = Retries()
    retries.failed(KEY, "a.jpg", BROKEN, 100.0)
    retries.forget(KEY)
    retries.forget(KEY)
    assert retries.get(KEY) is None
    assert not list(retries.failures())


def test_the_longest_due_come_first() -> None:
    retries = Retries()
    retries.failed(("claimed", 1), "a.jpg", BROKEN, 100.0)
    retries.failed(("claimed", 1), "a.jpg", BROKEN, 101.0)
    retries.failed(("claimed", 2), "b.jpg", BROKEN, 101.0)
    retries.failed(("inbox", "c.jpg"), "c.jpg", BROKEN, 99.0)
    assert retries.due("claimed", 200.0) == [("claimed", 2), ("claimed", 1)]
    assert {retry.name for _, retry in retries.failures()} == {"a.jpg", "b.jpg", "c.jpg"}


def test_every_reason_that_leads_to_a_rejection_or_tells_of_a_component_is_explained() -> None:
    assert set(COMPONENTS) | GIVEN_UP <= set(REASONS)
