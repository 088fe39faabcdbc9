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
