"""The short form of the damaged pictures; `make damaged` runs the long one."""

from __future__ import annotations

import damaged_pictures

from machine import needs


def test_no_damaged_jpeg_is_accepted_of_which_libjpeg_complains_and_no_whole_one_is_refused() -> (
    None
):
    needs(damaged_pictures.missing())
    found = damaged_pictures.storm(400, seed=3)
    # A drawing is so plain that arithmetic coding may not need its last bytes: docs/pictures.md.
    is_known = not damaged_pictures.REAL
    assert [name for name in found.refused if not (is_known and "arithmetic" in name)] == []
    assert not found.told
    assert found.wholes >= len(damaged_pictures.KINDS)
    assert sum(found.tried.values()) >= (250 if is_known else 300)
