"""The short form of the kill storm; `make storm` runs the long one."""

from __future__ import annotations

from pathlib import Path

import kill_storm
import pytest

KILLS = 60


@pytest.mark.timeout(600)
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    found = kill_storm.storm(tmp_path / "root", KILLS, seed=20261124)
    assert found.kills == KILLS
    assert found.files > KILLS


@pytest.mark.timeout(300)
def test_requests_to_stop_at_random_moments_are_followed_in_time(tmp_path: Path) -> None:
    found = kill_storm.storm(tmp_path / "root", 15, seed=4, politely=True)
    assert len(found.stops_s) == 15
    assert found.stops_s[-1] < 10
