"""The short form of the upload storm; `make uploadstorm` runs the long one."""

from __future__ import annotations

from pathlib import Path

import upload_storm

KILLS = 15


def test_kills_of_either_process_lose_and_double_no_upload(tmp_path: Path) -> None:
    found = upload_storm.storm(tmp_path / "root", KILLS, seed=20261125)
    assert found.taken > 20
    assert found.filed >= found.taken
