"""The short form of the kill storm; `make storm` runs the long one."""

from __future__ import annotations

from pathlib import Path

import faults
import kill_storm
import pytest

from machine import needs

KILLS = 120
STOPS = 20
FAILING_KILLS = 24


@pytest.mark.timeout(900)
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    found = kill_storm.storms(tmp_path, KILLS, seed=20261124, lanes=4)
    assert sum(one.kills for one in found) == KILLS
    assert sum(one.files for one in found) > KILLS


@pytest.mark.timeout(900)
def test_kills_while_calls_on_some_files_fail_lose_and_double_nothing(tmp_path: Path) -> None:
    needs(faults.missing())
    found = kill_storm.storms(tmp_path, FAILING_KILLS, seed=5, lanes=3, failing=30)
    assert sum(one.kills for one in found) == FAILING_KILLS
    assert all(one.failures for one in found)


def test_requests_to_stop_at_random_moments_are_followed_in_time(tmp_path: Path) -> None:
    found = kill_storm.storms(tmp_path, STOPS, seed=4, lanes=3, politely=True)
    stops_s = [second for one in found for second in one.stops_s]
    assert len(stops_s) == STOPS
    assert max(stops_s) < 10
