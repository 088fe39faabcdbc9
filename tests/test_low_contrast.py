"""The flag `low_contrast` on its way to the logs, and `deep_range` to the children."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import audit
from rig import Rig
from xray_watcher.config.settings import ImagesSettings, Settings
from xray_watcher.imaging.limits import DecodeLimits


def test_a_picture_in_which_the_network_sees_nothing_is_filed_with_the_flag(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    arrived = rig.drop("flat.jpg", "picture:Edema")  # the rig's pictures are of one value
    rig.settle()
    audit.check(rig.root, [arrived])
    (record,) = audit.jsonl_records(rig.root)
    assert "low_contrast" in record["flags"]
    (log,) = Path(rig.root, "logs").glob("*.csv")
    (row,) = csv.DictReader(log.read_text("utf-8-sig").splitlines())
    assert "low_contrast" in row["flags"].split(";")
    rig.crash()


@pytest.mark.parametrize("deep_range", ["full", "observed"])
def test_what_a_picture_may_be_reaches_the_children_as_it_was_set(deep_range: str) -> None:
    images = ImagesSettings(deep_range=deep_range)  # type: ignore[arg-type]
    limits = Settings(root="/data", images=images).decode_limits()
    assert limits.deep_range == deep_range
    assert DecodeLimits.from_arguments(limits.arguments()) == limits
    with pytest.raises(ValueError, match="half"):
        DecodeLimits.from_arguments((*limits.arguments()[:-1], "half"))
