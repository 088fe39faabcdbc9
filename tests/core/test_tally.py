"""`core.tally`: what one image adds to the running totals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xray_watcher.core.image_record import ImageRecord, ModelFields, Timings
from xray_watcher.core.tally import BOUNDS, Tally, tally_batch, tally_image
from xray_watcher.core.values import Rejection

RECORD = ImageRecord(
    schema=1,
    index=7,
    filename="a.jpg",
    source="er",
    inbox_path="er/a.jpg",
    received_at="2026-11-23T23:30:00.500Z",
    classified_at="2026-11-23T23:30:04.500Z",
    sha256="ab" * 32,
    bytes=1234,
    width=300,
    height=250,
    top_label="Edema",
    risk_level="High",
    flags=("low_margin",),
    all_probs={"Edema": 0.93, "Fracture": 0.05},
    duplicate_of=None,
    saved_path="classified_images/High/0007_a.jpg",
    batch_id="b000001",
    batch_size=1,
    model=ModelFields("phantom", "cd" * 32, "float32"),
    timings_ms=Timings(2000.0, 40.0, 12.0, 30.0, 1.0),
    simulated=True,
    notice="",
)


def test_a_classified_image_counts_once_in_each_of_its_series() -> None:
    tally = Tally()
    tally_image(tally, RECORD, 4.0)
    assert tally["classified", "High", ""] == 1
    assert tally["condition", "Edema", ""] == 1
    assert tally["flag", "low_margin", ""] == 1
    assert tally["stage_seconds", "decode", "0.025"] == 1
    assert tally["stage_seconds", "decode", "sum"] == 0.012
    assert tally["filed_seconds", "", "5.0"] == 1
    assert tally["score", "Edema", "0.95"] == 1
    assert tally["score", "Edema", "sum"] == 0.93
    assert not [key for key in tally if key[0] == "rejected"]


def test_a_rejected_image_counts_by_its_reason_and_not_in_stages_that_it_never_saw() -> None:
    tally = Tally()
    rejected = replace(
        RECORD,
        rejected=Rejection("corrupt", ""),
        risk_level="Rejected",
        flags=(),
        top_label=None,
        all_probs=None,
        timings_ms=replace(RECORD.timings_ms, infer=0.0),
    )
    tally_image(tally, rejected, 4.0)
    assert tally["rejected", "corrupt", ""] == 1
    assert {label for series, label, _ in tally if series == "stage_seconds"} == {
        *("settle", "queue", "decode", "file")
    }
    assert not [key for key in tally if key[0] in ("classified", "condition", "score")]


@pytest.mark.parametrize(
    ("waited_s", "bucket"), [(1.0, "1.0"), (1.1, "2.5"), (14401, "+Inf"), (-5.0, "1.0")]
)
def test_bounds_are_inclusive_and_a_clock_that_was_set_back_adds_nothing(
    waited_s: float, bucket: str
) -> None:
    tally = Tally()
    tally_image(tally, RECORD, waited_s)
    assert tally["filed_seconds", "", bucket] == 1
    assert tally["filed_seconds", "", "sum"] == max(waited_s, 0.0)


def test_a_batch_counts_by_its_size() -> None:
    assert tally_batch(16) == {("batch_images", "", "16.0"): 1, ("batch_images", "", "sum"): 16}


def test_the_bounds_ascend() -> None:
    for bounds in BOUNDS.values():
        assert list(bounds) == sorted(set(bounds))
