"""The short form of the disk that fills and empties; `make fulldisk` runs the long one."""

from __future__ import annotations

from pathlib import Path

import filling_disk
import pytest

from machine import needs


@pytest.mark.parametrize("kind", filling_disk.KINDS)
def test_a_disk_that_fills_and_empties_loses_nothing_and_stops_nothing(
    tmp_path: Path, kind: str
) -> None:
    needs(filling_disk.missing())
    found = filling_disk.storm(tmp_path, kind, 2, seed=20261124)
    assert found.files > 10
