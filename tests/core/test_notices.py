"""`core.notices`: few messages for many images, and each problem reported once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.notices import (
    MINUTE_US,
    NO_SUBSCRIPTIONS,
    Notice,
    ProblemWatch,
    Subscriptions,
    next_message_us,
    wait_s,
)

S = 1_000_000


def test_only_those_are_told_who_want_to_hear_of_it() -> None:
    subscriptions = Subscriptions({"webhook": ("high", "summary"), "command": ("high",)})
    assert subscriptions.notices("high", S, "7") == [
        Notice("webhook", "high", S, "7"),
        Notice("command", "high", S, "7"),
    ]
    assert subscriptions.notices("summary", S, "{}") == [Notice("webhook", "summary", S, "{}")]
    assert subscriptions.notices("rejected", S, "7") == []
    assert NO_SUBSCRIPTIONS.notices("high", S, "7") == []


@pytest.mark.parametrize(
    ("made_s", "now_s", "next_s"),
    [
        ([], 100, 100),
        ([90, 95], 100, 100),
        ([80, 90, 95], 100, 140),
        ([10, 90, 95], 100, 100),
        ([80, 85, 90, 95], 100, 145),
        ([200, 300, 400], 100, 100),  # made before the clock was set back
    ],
)
def test_three_messages_a_minute_and_no_more(made_s: list[int], now_s: int, next_s: int) -> None:
    assert next_message_us([m * S for m in made_s], now_s * S, 3) == next_s * S


@given(st.lists(st.integers(0, 300 * S), max_size=200), st.integers(1, 5))
def test_no_minute_has_more_messages_than_allowed(wanted_us: list[int], per_minute: int) -> None:
    made: list[int] = []
    for now_us in sorted(wanted_us):
        if next_message_us(made, now_us, per_minute) <= now_us:
            made.append(now_us)
    for start in made:
        assert sum(start <= at < start + MINUTE_US for at in made) <= per_minute


def test_the_waits_double_up_to_a_quarter_of_an_hour() -> None:
    assert [wait_s(attempts) for attempts in (1, 2, 3, 8, 9, 1000)] == [5, 10, 20, 640, 900, 900]


def test_a_trouble_is_told_once_when_it_has_lasted_and_so_is_its_end() -> None:
    watch = ProblemWatch(60, ())
    assert watch.update({"inbox"}, 0) == ([], [])
    assert watch.next_due_s == 60
    assert watch.update({"inbox"}, 60) == (["inbox"], [])
    assert watch.update({"inbox"}, 61) == (["inbox"], []), "until it is noted"
    watch.note(["inbox"], [])
    assert watch.update({"inbox"}, 62) == ([], [])
    assert watch.update((), 100) == ([], [])
    assert watch.update((), 160) == ([], ["inbox"])
    watch.note([], ["inbox"])
    assert watch.update((), 161) == ([], [])
    assert watch.next_due_s == float("inf")


def test_a_short_trouble_is_not_told() -> None:
    watch = ProblemWatch(60, ())
    for second in range(600):
        assert watch.update({"disk"} if 5 <= second < 45 else (), second) == ([], [])
    assert watch.next_due_s == float("inf")


def test_a_trouble_that_comes_and_goes_is_told_once_and_so_is_its_end() -> None:
    watch = ProblemWatch(60, ())
    told = []
    for second in range(600):
        is_there = second < 300 and second % 20 < 5
        degraded, recovered = watch.update({"disk"} if is_there else (), second)
        watch.note(degraded, recovered)
        told += [(second, "degraded") for _ in degraded] + [(second, "over") for _ in recovered]
    assert told == [(60, "degraded"), (284 + 60, "over")]


def test_the_end_of_a_trouble_is_told_after_a_restart() -> None:
    watch = ProblemWatch(60, ["share"])
    assert watch.update((), 5) == ([], [])
    assert watch.update((), 65) == ([], ["share"])
