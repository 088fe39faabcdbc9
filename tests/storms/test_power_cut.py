"""The short form of the power cuts, and the proof that they would see a missing safeguard."""

from __future__ import annotations

import power_cut
import pytest

from machine import needs


@pytest.fixture(autouse=True)
def _machine() -> None:
    needs(power_cut.missing())


@pytest.mark.parametrize("kind", power_cut.MAKE)
def test_power_cuts_lose_and_double_nothing(kind: str) -> None:
    assert list(power_cut.cuts(kind, 3, seed=20261124)) == [None] * 3


@pytest.mark.parametrize("weakened", ["normal", "fsync"])
def test_power_cuts_find_a_service_without_one_of_its_safeguards(weakened: str) -> None:
    assert any(power_cut.cuts("ext4", 4, seed=20261124, weakened=weakened))
