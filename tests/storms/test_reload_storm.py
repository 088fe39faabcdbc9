"""The short form of the reload storm; `make reloadstorm` runs the minute."""

from __future__ import annotations

from pathlib import Path

import pytest
import reload_storm


@pytest.mark.timeout(300)
def test_a_reload_every_second_loses_nothing_and_no_request_fails(tmp_path: Path) -> None:
    found = reload_storm.storm(tmp_path / "root", seconds=10, files=80)
    assert found.reloads >= 5
    assert found.uploads
    assert found.pages
