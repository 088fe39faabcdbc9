"""`sealing`: what a decision fixes is so in the folders, in the ledger and in the record."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

import audit
from rig import Rig
from xray_watcher.commands import fsck
from xray_watcher.intake.decoding import DecodeOutcome
from xray_watcher.intake.removing import remove_image


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


# -- its size -----------------------------------------------------------------------------


def test_the_size_of_an_image_whose_writer_went_on_is_that_of_the_filed_file(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, went_on = rig.decoder.submit, [b"#ten more."]

    def goes_on(path: str) -> Future[DecodeOutcome]:
        if went_on:
            with open(path, "ab") as writer:
                writer.write(went_on.pop())
        return submit(path)

    monkeypatch.setattr(rig.decoder, "submit", goes_on)
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    audit.check(rig.root, [b"picture:Edema#ten more."])
    (record,), (row,) = audit.jsonl_records(rig.root), rig.ledger.filed_rows()
    (filed,) = audit.filed(rig.root).values()
    assert record["bytes"] == row.size == filed.stat().st_size
    assert fsck.check(rig.settings, deep=True) == []
    assert row.sha256 is not None
    assert remove_image(str(filed), row.size, row.sha256) == "removed"


def test_the_size_of_an_image_that_vanished_is_that_of_the_last_look(rig: Rig) -> None:
    claim = rig.spool.claim

    def vanishes(path: str, image_id: int) -> bool:
        is_claimed = claim(path, image_id)
        Path(rig.spool.work_path(image_id)).unlink()
        return is_claimed

    rig.spool.claim = vanishes  # type: ignore[method-assign]
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    (record,) = audit.jsonl_records(rig.root)
    assert record["rejected"]["code"] == "missing"
    assert record["bytes"] == len("picture:Edema")
