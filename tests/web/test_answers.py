"""Waiting for results: until they are there, the daemon is gone for good, or the client is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

from rig import Rig
from xray_watcher.config.settings import Settings
from xray_watcher.intake.handover import Upload, upload_name
from xray_watcher.system.clock import SystemClock
from xray_watcher.web import answers
from xray_watcher.web.answers import (
    DaemonGone,
    Filed,
    UploadRequests,
    counts,
    filed_images,
    results_in_order,
)
from xray_watcher.web.context import WebContext
from xray_watcher.web.models import Result
from xray_watcher.web.receiving import Refusal, UploadRequest

ID = "20261123T120000-0123456789ab"
OTHER = "20261123T120000-0123456789ac"


def context_of(root: Path) -> WebContext:
    return WebContext(Settings(root=str(root), state_dir=str(root / "state")), SystemClock())


def with_uploads(root: Path, *positions: int, batch: str = ID) -> Rig:
    rig = Rig(root)
    with rig.ledger.transaction():
        rig.ledger.set_meta("work", str(root / ".xray-watcher"))
    rig.tick()
    for position in positions:
        upload = Upload(rig.spool.handover.folder, upload_name(batch, position))
        upload.write(f"picture:Edema#{position}".encode())
        upload.hand_over(f"{position}.png")
    return rig


async def stays() -> bool:
    return False


async def leaves() -> bool:
    return True


def all_filed(root: Path, batch: UploadRequest) -> list[Filed]:
    async def wait() -> list[Filed]:
        images: list[Filed] = []
        async for new in filed_images(context_of(root), batch, stays):
            images += new
        return images

    return asyncio.run(wait())


def results(root: Path, batch: UploadRequest, images: list[Filed]) -> list[Result]:
    async def read() -> list[Result]:
        return [one async for one in results_in_order(context_of(root), batch, images)]

    return asyncio.run(read())


def test_refused_files_stand_in_their_place_among_those_that_are_filed(tmp_path: Path) -> None:
    rig = with_uploads(tmp_path, 0, 2, 3)
    rig.ticks(3)
    refusals = {
        1: Refusal("b.png", "too_large", "Too large."),
        4: Refusal("e", "incomplete", "No."),
    }
    batch = UploadRequest(ID, files=5, accepted=3, refusals=refusals, is_over=True)
    images = all_filed(tmp_path, batch)
    names = [result.filename for result in results(tmp_path, batch, images)]
    assert names == ["0.png", "b.png", "2.png", "3.png", "e"]
    assert counts(batch, images).model_dump() == {"High": 3, "Medium": 0, "Low": 0, "Rejected": 2}
    rig.crash()


def test_what_is_filed_already_comes_in_pieces(tmp_path: Path) -> None:
    """Or the answer by lines would hold the records of a whole batch at once."""
    rig = with_uploads(tmp_path, *range(250))
    while rig.pipeline.done < 250:
        rig.tick(1)
    batch = UploadRequest(ID, files=250, accepted=250, is_over=True)

    async def wait() -> list[list[int]]:
        found = filed_images(context_of(tmp_path), batch, stays)
        return [[image.position for image in new] async for new in found]

    pieces = asyncio.run(wait())
    assert [len(piece) for piece in pieces] == [100, 100, 50]
    assert sorted(position for piece in pieces for position in piece) == [*range(250)]
    rig.crash()


def test_a_daemon_that_is_gone_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "GONE_S", 0.2)
    with_uploads(tmp_path, 0).crash()
    with pytest.raises(DaemonGone, match="safe"):
        all_filed(tmp_path, UploadRequest(ID, files=1, accepted=1))


def test_nobody_is_answered_who_has_gone_away(tmp_path: Path) -> None:
    rig = with_uploads(tmp_path, 0)

    async def wait() -> None:
        async for _ in filed_images(
            context_of(tmp_path), UploadRequest(ID, files=1, accepted=1), leaves
        ):
            pass

    with pytest.raises(ClientDisconnect):
        asyncio.run(wait())
    rig.crash()


def test_a_batch_of_an_earlier_life_is_known_by_what_waits_and_what_was_claimed(
    tmp_path: Path,
) -> None:
    rig = with_uploads(tmp_path, 0, 1)
    rig.ticks(3)
    context = context_of(tmp_path)
    upload = Upload(rig.spool.handover.folder, upload_name(ID, 2))
    upload.write(b"picture:Edema")
    upload.hand_over("2.png")
    batch = UploadRequests().find(context, ID)
    assert batch == UploadRequest(ID, files=3, accepted=3, is_over=True)
    assert UploadRequests().find(context, OTHER) is None
    rig.crash()


def test_batches_with_like_ids_are_kept_apart(tmp_path: Path) -> None:
    rig = with_uploads(tmp_path, 0, 1)
    rig.ticks(3)
    rig.crash()
    rig = with_uploads(tmp_path, 0, batch=OTHER)
    rig.ticks(3)
    assert len(all_filed(tmp_path, UploadRequest(OTHER, files=1, accepted=1))) == 1
    assert len(all_filed(tmp_path, UploadRequest(ID, files=2, accepted=2))) == 2
    rig.crash()


def test_the_memory_of_batches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_REMEMBERED", 3)
    batches = UploadRequests()
    for number in range(10):
        batches.add(UploadRequest(str(number)))
    assert list(batches._batches) == ["7", "8", "9"]


@pytest.mark.parametrize("cut", ["20261123T120000", "20261123T120000-", "2026", ID + "-000000", ""])
def test_the_beginning_of_an_id_is_no_id(cut: str, tmp_path: Path) -> None:
    """It would stand for all requests of that second."""
    rig = with_uploads(tmp_path, 0, 1)
    batches, context = UploadRequests(), context_of(tmp_path)
    assert batches.find(context, ID) is not None
    assert batches.find(context, cut) is None
    rig.crash()
