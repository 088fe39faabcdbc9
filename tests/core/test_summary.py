"""`core.summary` and `core.times`: the figures of a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.summary import DayEntry, DayFigures, quantile
from xray_watcher.core.times import from_us, local_day, local_text, to_us, utc_text

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def entry(
    state: str = "classified", at_s: float = 0, took_s: float = 5, **more: object
) -> DayEntry:
    received = NOON + timedelta(seconds=at_s)
    filed = None if state == "pending" else received + timedelta(seconds=took_s)
    made: dict[str, object] = {"state": state, "source": "", "received_at": received}
    if state == "classified":
        made |= {"level": "High", "top_label": "Edema", "scores": {"Edema": 0.8}, "model": "m"}
    elif state == "rejected":
        made |= {"reject_code": "corrupt", "model": "m"}
    return DayEntry(**(made | {"filed_at": filed} | more))  # type: ignore[arg-type]


def figures(*entries: DayEntry) -> dict[str, object]:
    day = DayFigures("2026-11-23")
    for one in entries:
        if one.state != "pending":
            day.add(one)
    pending = [one for one in entries if one.state == "pending"]
    return day.summary(pending, closed=False, waiting_in_inbox=0)


@given(states=st.lists(st.sampled_from(["classified", "rejected", "pending"]), max_size=30))
def test_what_was_received_is_classified_rejected_or_pending(states: list[str]) -> None:
    found = figures(*(entry(state) for state in states))
    assert found["received"] == len(states)
    assert found["received"] == found["classified"] + found["rejected"] + found["pending"]
    assert sum(found["by_level"].values()) == found["classified"]
    assert sum(found["by_reject_code"].values()) == found["rejected"]


def test_images_are_counted_by_level_condition_source_flag_and_reason() -> None:
    found = figures(
        entry(source="er", flags=("low_margin", "duplicate_of")),
        entry(source="er", level="Low", top_label="Fracture", simulated=True),
        entry(flags=("low_margin",)),
        entry("rejected"),
    )
    assert found["by_level"] == {"High": 2, "Medium": 0, "Low": 1}
    assert found["by_top_label"] == {"Edema": 2, "Fracture": 1}
    assert found["by_source"] == {"": 2, "er": 2}
    assert found["by_flag"] == {"low_margin": 2, "duplicate_of": 1}
    assert found["by_reject_code"] == {"corrupt": 1}
    assert found["models"] == {"m": 4}
    assert found["simulated"]


def test_latency_is_from_arrival_to_filed_and_speed_is_images_per_minute() -> None:
    found = figures(*(entry(at_s=10 * n, took_s=n) for n in range(1, 11)))
    assert found["latency_s"] == {"p50": 5.5, "p95": 9.55}
    assert found["images_per_minute"] == 6.0  # ten images in 100 seconds
    assert found["first_received_at"] == "2026-11-23T12:00:10.000Z"
    assert found["last_received_at"] == "2026-11-23T12:01:40.000Z"


def test_scores_have_a_median_and_quartiles_for_each_label() -> None:
    found = figures(*(entry(scores={"Edema": n / 10}) for n in range(5)))
    assert found["scores"] == {"Edema": {"q1": 0.1, "median": 0.2, "q3": 0.3}}


def test_a_day_without_images_has_no_figures_but_zeros() -> None:
    found = figures()
    assert found["received"] == 0
    assert found["latency_s"] is None
    assert found["images_per_minute"] is None


@given(numbers=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), share=st.floats(0, 1))
def test_quantiles_are_those_of_numpy(numbers: list[float], share: float) -> None:
    expected = float(np.quantile(numbers, share))
    assert quantile(sorted(numbers), share) == pytest.approx(expected, abs=1e-6)


@given(microseconds=st.integers(-(10**15), 10**16))
def test_microseconds_survive_the_way_there_and_back(microseconds: int) -> None:
    assert to_us(from_us(microseconds)) == microseconds


def test_times_are_utc_in_records_and_local_with_offset_for_people() -> None:
    athens = ZoneInfo("Europe/Athens")
    late = datetime(2026, 11, 23, 23, 30, 0, 123456, tzinfo=UTC)
    assert utc_text(late) == "2026-11-23T23:30:00.123Z"
    assert local_text(late, athens) == "2026-11-24T01:30:00.123+02:00"
    assert local_day(late, athens) == "2026-11-24"
    assert local_day(datetime(2026, 7, 1, 20, 59, tzinfo=UTC), athens) == "2026-07-01"
    assert local_day(datetime(2026, 7, 1, 21, 0, tzinfo=UTC), athens) == "2026-07-02"
