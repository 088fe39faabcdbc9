"""The second door: whatever kills either side, an upload is taken once or was never promised."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import audit
from rig import QUIET_S, START, Rig
from test_recovery import Killed, kill_at, run_to_the_end, run_until_killed
from xray_watcher.commands import retry
from xray_watcher.core.naming import client_name
from xray_watcher.errors import Unavailable
from xray_watcher.intake import handover as door
from xray_watcher.intake.handover import Upload, upload_name, waiting_uploads
from xray_watcher.intake.handover_source import STALE_S

BATCH = "20261123T120000-0123456789ab"
DAEMON_STEPS = (
    ("ledger", "begin_claims"),
    ("spool.handover", "claim"),
    ("spool.handover", "sync"),
    ("spool.work", "sync"),
    ("spool.inbox", "sync"),
    ("ledger", "decide"),
    ("spool.results", "file"),
    ("logs", "append"),
    ("ledger", "finish"),
)
WEB_STEPS = ("sync", "write_sidecar", "rename_noreplace", "sync_folder")


def begin(rig: Rig) -> str:
    """The folder of uploads, made as the daemon makes it."""
    rig.tick()
    return rig.spool.handover.folder


def put(folder: str, position: int, filename: str, content: bytes) -> bytes:
    upload = Upload(folder, upload_name(BATCH, position))
    upload.write(content)
    upload.hand_over(filename)
    return content


def put_all(rig: Rig) -> list[bytes]:
    folder = begin(rig)
    return [
        put(folder, 0, "a.jpg", b"picture:Edema"),
        put(folder, 1, "b.jpg", b"no picture"),
        put(folder, 2, "../../c.jpg", b"picture:Fracture"),
        put(folder, 3, "again.jpg", b"picture:Edema"),
        rig.drop("web/a.jpg", "picture:Effusion"),
    ]


def left(rig: Rig) -> list[str]:
    return sorted(os.listdir(rig.spool.handover.folder))


def test_an_upload_is_filed_without_a_settle_time_under_the_name_that_its_client_gave(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    put(begin(rig), 0, "patient1_xray.jpg", b"picture:Edema")
    rig.tick()
    (record,) = audit.jsonl_records(tmp_path)
    assert (record["filename"], record["source"]) == ("patient1_xray.jpg", "web")
    assert record["saved_path"] == "classified_images/High/0000_patient1_xray.jpg"
    assert record["timings_ms"]["settle"] == 0.0
    assert left(rig) == []
    rig.crash()


def test_another_receiver_s_files_have_its_source_and_wait_with_those_of_the_inbox(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    received = Upload(begin(rig), upload_name(BATCH, 0))
    received.write(b"picture:Edema")
    received.hand_over("1.2.840.jpg", "ct-2")
    rig.tick()
    assert not rig.arrivals.is_pressed
    assert audit.jsonl_records(tmp_path) == []
    rig.ticks(QUIET_S)
    (record,) = audit.jsonl_records(tmp_path)
    assert (record["filename"], record["source"]) == ("1.2.840.jpg", "ct-2")
    assert left(rig) == []
    rig.crash()


@pytest.mark.parametrize(
    ("facts", "filename", "source"),
    [
        ('{"filename": "a.jpg"}', "a.jpg", "web"),  # as older versions wrote it
        ("no JSON", "unnamed", "web"),
        ('{"filename": "a.jpg", "source": 7}', "a.jpg", "web"),
        ('{"filename": "a.jpg", "source": ""}', "a.jpg", "web"),
        ('{"filename": "a.jpg", "source": "../../ct"}', "a.jpg", "ct"),
        ('{"filename": "a.jpg", "source": ".."}', "a.jpg", "unnamed"),
        ('{"filename": "a.jpg", "source": "ct\\n\\u202e2"}', "a.jpg", "ct%0A%E2%80%AE2"),
    ],
)
def test_what_a_side_car_says_is_taken_as_far_as_it_is_safe(
    tmp_path: Path, facts: str, filename: str, source: str
) -> None:
    rig = Rig(tmp_path)
    folder = Path(begin(rig))
    (folder / f"{upload_name(BATCH, 0)}.json").write_text(facts)
    (folder / f"{upload_name(BATCH, 0)}.image").write_bytes(b"picture:Edema")
    rig.ticks(QUIET_S + 1)
    (record,) = audit.jsonl_records(tmp_path)
    assert (record["filename"], record["source"]) == (filename, source)
    rig.crash()


def test_the_ledger_knows_an_upload_by_its_name(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    put(folder, 7, "x.jpg", b"picture:Edema")
    assert waiting_uploads(folder, BATCH) == {upload_name(BATCH, 7): "x.jpg"}
    rig.tick()
    row = rig.ledger.image_with_index(0)
    assert row is not None
    assert row.upload == upload_name(BATCH, 7)
    assert waiting_uploads(folder, BATCH) == {}
    rig.crash()


def test_the_request_of_an_upload_stands_beside_it_and_in_its_record(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    put(folder, 0, "a.jpg", b"picture:Edema")
    sidecar = Path(folder) / (upload_name(BATCH, 0) + ".json")
    facts = {"filename": "a.jpg", "source": "web", "request_id": BATCH}
    assert json.loads(sidecar.read_text()) == facts
    rig.drop("web/b.jpg", "picture:Effusion")
    rig.settle()
    upload, dropped = audit.jsonl_records(tmp_path)
    assert upload["request_id"] == BATCH
    assert "request_id" not in dropped
    assert [row["request_id"] for row in audit.csv_rows(tmp_path)] == [BATCH, ""]
    rig.crash()


def test_another_try_of_a_rejected_upload_keeps_its_request(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    put(begin(rig), 0, "a.jpg", b"no picture")
    rig.tick()
    rig.drop("b.jpg", "no picture either")
    rig.settle()
    for index in (0, 1, 2):  # and the other try of another try
        retry.put_back(rig.settings, [str(index)], START, every=False)
        rig.settle()
    found = [(r.get("retry_of"), r.get("request_id")) for r in audit.jsonl_records(tmp_path)]
    assert found == [(None, BATCH), (None, None), (0, BATCH), (1, None), (2, BATCH)]
    rig.crash()


def test_uploads_are_numbered_in_the_order_of_the_request(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_size=3)
    folder = begin(rig)
    for position in (4, 0, 3, 1, 2):
        put(folder, position, f"{position}.jpg", f"picture:Edema#{position}".encode())
    rig.ticks(3)
    names = [record["filename"] for record in audit.jsonl_records(tmp_path)]
    assert names == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    rig.crash()


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("part", "step"), DAEMON_STEPS)
def test_a_kill_of_the_daemon_at_any_step_loses_and_doubles_no_upload(
    tmp_path: Path, part: str, step: str, when: str, nth: int
) -> None:
    rig = Rig(tmp_path, max_size=2)
    arrived = put_all(rig)
    kill_at(rig, part, step, when, nth)
    assert run_until_killed(rig) or nth > 1
    rig = run_to_the_end(tmp_path)
    assert left(rig) == []
    rig.crash()
    audit.check(tmp_path, arrived)
    requests = [row["request_id"] for row in audit.csv_rows(tmp_path)]
    assert sorted(requests) == ["", *[BATCH] * 4]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("part", "step"), [("ledger", "drop_claims"), *DAEMON_STEPS])
def test_a_kill_during_recovery_loses_and_doubles_no_upload(
    tmp_path: Path, part: str, step: str, when: str
) -> None:
    rig = Rig(tmp_path)
    arrived = put_all(rig)
    kill_at(rig, "spool.handover", "claim", "after", 2)
    assert run_until_killed(rig)
    again = Rig(tmp_path)
    kill_at(again, part, step, when, 1)
    run_until_killed(again)
    run_to_the_end(tmp_path).crash()
    audit.check(tmp_path, arrived)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", WEB_STEPS)
def test_a_kill_of_the_web_leaves_a_whole_upload_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    original: Callable[..., Any] = getattr(door, step)

    def dying(*args: Any, **kwargs: Any) -> None:
        if when == "after":
            original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(door, step, dying)
        with pytest.raises(Killed):
            put(folder, 0, "a.jpg", b"picture:Edema")
    is_over = (step, when) == ("rename_noreplace", "after") or step == "sync_folder"
    handed_over = [b"picture:Edema"] if is_over else []
    rig.settle()
    audit.check(tmp_path, handed_over)
    rig.ticks(STALE_S * 2, step_s=300.0)
    assert left(rig) == []
    audit.check(tmp_path, handed_over)
    rig.crash()


def test_an_upload_in_progress_and_a_waiting_image_are_never_cleaned_away(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    slow = Upload(folder, upload_name(BATCH, 0))
    rig.engine.broken = True  # nothing can be filed for hours
    put(folder, 1, "waits.jpg", b"picture:Edema")
    for _ in range(30):
        slow.write(b"x")
        rig.ticks(STALE_S / 2, step_s=300.0)
    assert left(rig)[0] == upload_name(BATCH, 0) + ".part"
    slow.discard()
    rig.engine.broken = False
    rig.ticks(120)
    audit.check(tmp_path, [b"picture:Edema"])
    rig.crash()


def test_an_image_without_its_name_is_taken_all_the_same(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    put(folder, 0, "a.jpg", b"picture:Edema")
    os.unlink(os.path.join(folder, upload_name(BATCH, 0) + ".json"))
    rig.tick()
    (record,) = audit.jsonl_records(tmp_path)
    assert record["filename"] == "unnamed"
    rig.crash()


def test_a_name_that_is_said_to_be_gone_and_is_not_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    put(begin(rig), 0, "a.jpg", b"picture:Edema")
    opened = os.open

    def gone(path: str, *how: Any, **more: Any) -> int:
        if str(path).endswith(f"{upload_name(BATCH, 0)}.json"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return opened(path, *how, **more)

    with monkeypatch.context() as failing:
        failing.setattr(os, "open", gone)
        rig.ticks(20)
        assert audit.jsonl_records(tmp_path) == []
    rig.ticks(60)
    (record,) = audit.jsonl_records(tmp_path)
    assert record["filename"] == "a.jpg"
    rig.crash()


def test_uploads_whose_share_fails_for_a_moment_are_offered_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    arrived = [put(folder, n, "a.jpg", f"picture:Edema#{n}".encode()) for n in range(2)]
    lstat, failing = os.lstat, [upload_name(BATCH, 1)]

    def stale(path: str) -> os.stat_result:
        if failing and failing[0] in str(path):
            failing.clear()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return lstat(path)

    monkeypatch.setattr(os, "lstat", stale)
    rig.tick()
    ((_, retry),) = rig.retries.waiting("upload").items()
    assert retry.reason is not None
    assert (retry.reason.code, retry.tries) == ("unreadable", 1)
    assert len(audit.jsonl_records(tmp_path)) == 1, "the other one goes on"
    rig.ticks(10)
    assert not rig.health.problems
    audit.check(tmp_path, arrived)
    rig.crash()


def test_an_upload_that_cannot_be_claimed_is_claimed_later(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    arrived = [put(folder, n, "a.jpg", f"picture:Edema#{n}".encode()) for n in range(3)]
    claim = rig.spool.handover.claim

    def refusing(name: str, image_id: int) -> bool:
        if name == upload_name(BATCH, 1):
            raise Unavailable("uploads", "no")
        return claim(name, image_id)

    rig.spool.handover.claim = refusing  # type: ignore[method-assign]
    rig.tick()
    assert "work" in rig.health.problems
    rig.spool.handover.claim = claim  # type: ignore[method-assign]
    rig.ticks(10)
    assert not rig.health.problems
    audit.check(tmp_path, arrived)
    rig.crash()


def test_nothing_is_claimed_while_the_disk_is_low(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    rig.health.failed("disk", "low", rig.clock.monotonic_s() + 1000)
    put(folder, 0, "a.jpg", b"picture:Edema")
    rig.ticks(3)
    assert audit.jsonl_records(tmp_path) == []
    assert len(rig.spool.handover) == 1
    rig.crash()


def test_a_rejected_upload_is_tried_again_under_the_name_that_its_client_gave(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    content = put(begin(rig), 0, "notes", b"nan")
    rig.tick()
    (rejected,) = audit.jsonl_records(tmp_path)
    retry.put_back(rig.settings, [], rig.clock.now(), every=True)
    assert waiting_uploads(rig.spool.handover.folder, BATCH) == {}  # its request is answered
    rig.ticks(3)
    last = audit.jsonl_records(tmp_path)[-1]
    assert (last["filename"], last["source"]) == ("notes", "web")
    assert last["retry_of"] == rejected["index"]
    assert [p.read_bytes() for p in audit.filed(tmp_path).values()] == [content]
    assert left(rig) == []
    rig.crash()


def test_a_client_can_name_a_file_as_it_likes_and_makes_no_retry_of_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.drop("a.jpg", "no picture")
    rig.settle()
    folder = begin(rig)
    names = ["retry-000000000000", "retry-000000000000.image", '", "retry_of": 0, "x": "']
    for position, name in enumerate(names):
        put(folder, position, name, b"no picture")
    rig.settle()
    assert [r.get("retry_of") for r in audit.jsonl_records(tmp_path)] == [None] * 4
    rig.crash()


def test_a_file_that_is_slowly_put_back_keeps_the_name_that_goes_with_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    part, facts = (Path(folder, f"retry-000000000000.{end}") for end in ("part", "json"))
    facts.write_text("{}")
    for _ in range(30):
        part.write_bytes(b"x" * (part.stat().st_size + 1 if part.exists() else 1))
        rig.ticks(STALE_S / 2, step_s=300.0)
    assert facts.exists()
    part.unlink()
    rig.ticks(STALE_S * 2, step_s=300.0)
    assert left(rig) == []
    rig.crash()


def test_a_small_file_that_is_said_to_be_gone_and_is_not_is_removed_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    put(begin(rig), 0, "a.jpg", b"picture:Edema")
    unlink = os.unlink

    def gone(path: str) -> None:
        if path.endswith(".json"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", gone)
    rig.ticks(20)
    assert left(rig) == [upload_name(BATCH, 0) + ".json"]
    monkeypatch.setattr(os, "unlink", unlink)
    rig.tick()
    assert left(rig) == []
    audit.check(tmp_path, [b"picture:Edema"])
    rig.crash()


def test_part_of_an_upload_is_gone_when_it_is_discarded(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    upload = Upload(begin(rig), upload_name(BATCH, 0))
    upload.write(b"half a pic")
    upload.discard()
    assert left(rig) == []
    rig.crash()


def test_an_upload_never_replaces_another(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    put(folder, 0, "a.jpg", b"picture:Edema")
    with pytest.raises(FileExistsError):
        put(folder, 0, "a.jpg", b"picture:Effusion")
    rig.crash()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("patient1_xray.jpg", "patient1_xray.jpg"),
        ("../../etc/cron.d/x", "x"),
        ("/etc/passwd", "passwd"),
        ("C:\\films\\a.png", "a.png"),
        ("..", "unnamed"),
        ("ward/..", "unnamed"),
        ("", "unnamed"),
        ("a\0b.png", "a%00b.png"),
        ("a\r\nSet-Cookie: x.png", "a%0D%0ASet-Cookie: x.png"),
        ("\u202egnp.exe.png", "%E2%80%AEgnp.exe.png"),
        ("bad\udcff.png", "bad%FF.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("x" * 300 + ".png", "x" * 251 + ".png"),
        ("é" * 200 + ".png", "é" * 125 + ".png"),
    ],
)
def test_the_name_that_a_client_gives_is_data_and_never_a_path(sent: str, kept: str) -> None:
    assert client_name(sent) == kept
    assert client_name(kept) == kept
    assert len(kept.encode()) <= 255


def test_a_sidecar_that_somebody_else_wrote_is_not_believed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    folder = begin(rig)
    put(folder, 0, "a.jpg", b"picture:Edema")
    sidecar = Path(folder) / (upload_name(BATCH, 0) + ".json")
    sidecar.write_text(json.dumps({"filename": "../../../etc/passwd"}))
    rig.tick()
    (record,) = audit.jsonl_records(tmp_path)
    assert record["filename"] == "passwd"
    rig.crash()
