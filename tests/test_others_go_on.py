"""One file, one folder or one failure that stands in the way does not hold back the others."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import pytest

import audit
from rig import GIVE_UP_S, SCAN_S, Rig
from xray_watcher.commands import fsck, retry
from xray_watcher.core.retries import LONGEST_DELAY_S
from xray_watcher.core.values import INBOX, Arrival, Origin, SeenFile
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import DecodeOutcome
from xray_watcher.intake import filing as filing_module
from xray_watcher.intake import inbox_source as source_module
from xray_watcher.intake import inbox_watch as watch_module
from xray_watcher.intake import work_folder as work_module
from xray_watcher.intake.handover import Upload, upload_name
from xray_watcher.intake.removing import remove_image
from xray_watcher.intake.waiting import BUSY_IS_NORMAL_S
from xray_watcher.pipeline import judging as judging_module
from xray_watcher.service import daemon as daemon_module
from xray_watcher.service.assembly import _timetable
from xray_watcher.system.hands import Threads


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, max_size=2)
    yield made
    made.crash()


def failing(owner: Any, name: str, error: Exception, times: int) -> None:
    """Let a method fail so many times before it does its work."""
    original, left = getattr(owner, name), [error] * times

    def method(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return original(*args, **kwargs)

    setattr(owner, name, method)


def barring(
    step: str, name: str, kind: int, module: ModuleType = source_module
) -> Callable[..., Any]:
    """A step of a module, but not for files whose names end so."""
    original = getattr(module, step)

    def stepped(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(arg, str) and arg.endswith(name) for arg in args):
            raise OSError(kind, os.strerror(kind))
        return original(*args, **kwargs)

    return stepped


# -- a file that may not be taken ---------------------------------------------------------


@pytest.mark.parametrize("step", ["open_nofollow", "rename_noreplace"])
@pytest.mark.parametrize(
    "kind",
    [
        errno.EACCES,  # another user's, mode 0600, or in a folder of another user
        errno.EPERM,
        errno.EBUSY,  # on a share a client holds it
        errno.EAGAIN,  # somebody holds a lease
        errno.EIO,  # on a bad sector, or a virus scanner refuses it
        errno.ESTALE,
        errno.EUCLEAN,
        errno.EINVAL,
        errno.ENOKEY,
        errno.ETIMEDOUT,
    ],
)
def test_a_file_that_cannot_be_taken_is_told_and_all_others_are_filed(
    step: str, kind: int, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, step, barring(step, "bad.jpg", kind))
    rig.drop("bad.jpg", "picture:Edema#bad")
    rig.ticks(1)
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    rig.ticks(20)
    audit.check(rig.root, arrived, inbox=rig.root / "elsewhere")
    assert [path.name for path in rig.inbox.iterdir()] == ["bad.jpg"]
    rig.ticks(BUSY_IS_NORMAL_S)
    assert list(rig.health.problems) == ["files"]
    detail = rig.health.problems["files"].reason
    assert "1 image waits" in detail
    assert os.strerror(kind) in detail
    assert "bad.jpg" not in detail
    assert not list(rig.ledger.open_rows())
    monkeypatch.undo()  # the cause is gone
    rig.ticks(LONGEST_DELAY_S + 20)
    audit.check(rig.root, [*arrived, b"picture:Edema#bad"])
    assert not rig.health.problems


def test_a_file_that_cannot_be_read_for_an_hour_is_rejected_unread(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        source_module, "open_nofollow", barring("open_nofollow", "bad.jpg", errno.EIO)
    )
    arrived = [rig.drop("ward/bad.jpg", "picture:Edema#bad")]
    rig.ticks(GIVE_UP_S - 60, step_s=SCAN_S)
    assert not audit.filed(rig.root)
    rig.ticks(240, step_s=SCAN_S)
    (record,) = audit.jsonl_records(rig.root)
    assert record["rejected"]["code"] == "unreadable"
    assert "Input/output error" in record["rejected"]["detail"]
    assert record["sha256"] is None
    assert [path.read_bytes() for path in audit.filed(rig.root).values()] == arrived
    assert not rig.health.problems


def test_a_file_that_can_be_read_again_before_it_is_claimed_is_not_rejected(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given up, and its claim failed for another reason: it is asked once more."""
    failing(rig.ledger, "begin_claims", Unavailable("disk", "it is full"), times=1)
    with monkeypatch.context() as unreadable:
        refuse = barring("open_nofollow", "a.jpg", errno.EIO)
        unreadable.setattr(source_module, "open_nofollow", refuse)
        arrived = [rig.drop("a.jpg", "picture:Edema")]
        while "work" not in rig.health.problems:
            rig.tick(SCAN_S)
    rig.ticks(60)
    audit.check(rig.root, arrived)
    assert audit.jsonl_records(rig.root)[0]["risk_level"] == "High"


def test_a_file_that_was_rejected_unread_is_no_difference_and_is_linked_when_it_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(
            source_module, "open_nofollow", barring("open_nofollow", "a.jpg", errno.EIO)
        )
        arrived = [rig.drop("ward/a.jpg", "picture:Edema")]
        rig.ticks(GIVE_UP_S + 180, step_s=SCAN_S)
    assert fsck.check(rig.settings, deep=True) == []
    retry.put_back(rig.settings, [], rig.clock.now(), every=True)
    rig.ticks(20)
    rejected, scored = audit.jsonl_records(rig.root)
    assert scored["retry_of"] == rejected["index"] == 0
    assert scored["risk_level"] == "High"
    assert [path.read_bytes() for path in audit.filed(rig.root).values()] == arrived


def test_a_file_that_was_rejected_unread_is_removed_when_it_is_old_if_it_has_its_size(
    tmp_path: Path,
) -> None:
    for name, content in (("a.jpg", b"as it was"), ("b.jpg", b"changed since")):
        (tmp_path / name).write_bytes(content)
    assert remove_image(str(tmp_path / "a.jpg"), 9, None) == "removed"
    assert remove_image(str(tmp_path / "b.jpg"), 9, None) == "changed"


@pytest.mark.parametrize("kind", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_claimed_file_that_cannot_be_read_waits_alone_and_is_rejected_unread_after_an_hour(
    kind: int, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = work_module.compute_sha256

    def refusing(fd: int, *args: Any) -> bytes:
        if b"bad" in os.pread(fd, 100, 0):
            raise OSError(kind, os.strerror(kind))
        return whole(fd, *args)

    monkeypatch.setattr(work_module, "compute_sha256", refusing)
    rig.drop("bad.jpg", "picture:Edema#bad")
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    rig.ticks(20)
    assert len(audit.jsonl_records(rig.root)) == 5
    assert os.strerror(kind) in rig.health.problems["files"].reason
    arrived.append(rig.drop("later.jpg", "picture:Edema#later"))
    rig.ticks(20)
    assert len(audit.jsonl_records(rig.root)) == 6
    rig.ticks(GIVE_UP_S + 120, step_s=SCAN_S)
    record = audit.jsonl_records(rig.root)[-1]
    assert record["rejected"]["code"] == "unreadable"
    assert not rig.health.problems
    assert sorted(path.read_bytes() for path in audit.filed(rig.root).values()) == sorted(
        [*arrived, b"picture:Edema#bad"]
    )


def test_a_claimed_file_that_can_be_read_again_is_scored(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing_for_a_while:
        refuse = barring("_open", "0001", errno.EIO, work_module)
        failing_for_a_while.setattr(work_module, "_open", refuse)
        arrived = [rig.drop("a.jpg", "picture:Edema"), rig.drop("b.jpg", "picture:Fracture")]
        rig.ticks(30)
        assert len(audit.jsonl_records(rig.root)) == 1
    rig.ticks(LONGEST_DELAY_S)
    audit.check(rig.root, arrived)


def test_an_image_that_cannot_be_moved_to_the_results_is_decided_anew_and_stops_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing_for_a_while:
        refuse = barring("rename_noreplace", "_bad.jpg", errno.EIO, filing_module)
        failing_for_a_while.setattr(filing_module, "rename_noreplace", refuse)
        arrived = [rig.drop("bad.jpg", "picture:Edema#bad")]
        arrived += [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
        rig.ticks(60)
        assert len(audit.jsonl_records(rig.root)) == 5
        assert list(rig.health.problems) == ["files"]
        assert rig.ledger.next_index <= 5 + 7, "it is tried less and less often"
    rig.ticks(LONGEST_DELAY_S)
    audit.check(rig.root, arrived)
    assert not rig.health.problems


def test_a_claimed_file_that_is_written_all_along_is_tried_less_often_and_rejected(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.drop("bad.jpg", "picture:Edema#bad")
    monkeypatch.setattr(judging_module, "is_unchanged", lambda it: "0001" not in it.path)
    rig.drop("a.jpg", "picture:Edema#a")
    rig.ticks(300)
    assert len(audit.jsonl_records(rig.root)) == 1
    assert "still being written" in rig.health.problems["files"].reason
    assert len(rig.engine.batches) < 20
    rig.ticks(GIVE_UP_S, step_s=SCAN_S)
    assert audit.jsonl_records(rig.root)[-1]["rejected"]["code"] == "unreadable"


def test_a_file_that_does_not_answer_holds_up_none_of_its_batch_and_is_scored_when_it_does(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_DECODE_WAIT_S", 0.0)
    submit, hung = rig.decoder.submit, list[tuple[Future[DecodeOutcome], str]]()

    def slowly(path: str) -> Future[DecodeOutcome]:
        if b"#bad" in Path(path).read_bytes():
            hung.append((Future(), path))
            return hung[-1][0]
        return submit(path)

    monkeypatch.setattr(rig.decoder, "submit", slowly)
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    arrived.append(rig.drop("bad.jpg", "picture:Edema#bad"))
    rig.ticks(SCAN_S + 10)
    assert len(audit.jsonl_records(rig.root)) == 5
    arrived.append(rig.drop("later.jpg", "picture:Fracture"))
    rig.ticks(20)
    assert len(audit.jsonl_records(rig.root)) == 6
    ((future, path),) = hung
    future.set_result(submit(path).result())
    rig.ticks(5)
    audit.check(rig.root, arrived)


def test_a_claimed_file_that_never_answers_is_told_and_rejected_unread_after_an_hour(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_DECODE_WAIT_S", 0.0)
    monkeypatch.setattr(rig.decoder, "submit", lambda _path: Future())
    arrived = [rig.drop("bad.jpg", "picture:Edema#bad")]
    rig.ticks(60)
    assert "does not answer" in rig.health.problems["files"].reason
    rig.ticks(GIVE_UP_S + 60, step_s=SCAN_S)
    (record,) = audit.jsonl_records(rig.root)
    assert record["rejected"]["code"] == "unreadable"
    assert [path.read_bytes() for path in audit.filed(rig.root).values()] == arrived
    assert not rig.health.problems


def not_answering(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> tuple[Event, Threads]:
    """Let `bad.jpg` not answer whether it is ready until the event is set."""
    answer, hands = Event(), Threads(4)
    readiness = rig.spool.inbox.readiness

    def slowly(file: SeenFile, **how: bool) -> Any:
        if file.path == "bad.jpg":
            answer.wait(60)
        return readiness(file, **how)

    monkeypatch.setattr(rig.spool.inbox, "readiness", slowly)
    monkeypatch.setattr(rig.arrivals.inbox, "_hands", hands)
    monkeypatch.setattr(watch_module, "_ANSWER_S", 0.3)
    monkeypatch.setattr(watch_module, "_PATIENCE_S", 0.05)
    return answer, hands


def test_a_file_that_does_not_answer_when_it_is_asked_whether_it_is_ready_is_left_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, hands = not_answering(rig, monkeypatch)
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    arrived.append(rig.drop("bad.jpg", "picture:Edema#bad"))
    rig.ticks(20)
    assert len(audit.jsonl_records(rig.root)) == 5
    assert "does not answer" in rig.health.problems["files"].reason
    answer.set()
    rig.ticks(LONGEST_DELAY_S)
    audit.check(rig.root, arrived)
    hands.close()


def test_a_file_that_never_answers_is_rejected_unread_after_an_hour(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, hands = not_answering(rig, monkeypatch)
    rig.drop("bad.jpg", "picture:Edema#bad")
    rig.ticks(GIVE_UP_S + 180, step_s=SCAN_S)
    (record,) = audit.jsonl_records(rig.root)
    assert record["rejected"]["code"] == "unreadable"
    assert [path.read_bytes() for path in audit.filed(rig.root).values()] == [b"picture:Edema#bad"]
    answer.set()
    hands.close()


def test_many_files_that_cannot_be_taken_keep_no_place_in_the_batches(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = barring("rename_noreplace", "bad.jpg", errno.EACCES)
    monkeypatch.setattr(source_module, "rename_noreplace", barred)
    for number in range(10):
        rig.drop(f"{number}bad.jpg", f"picture:Edema#bad {number}")
    arrived = [rig.drop(f"z{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    rig.ticks(60)
    audit.check(rig.root, arrived, inbox=rig.root / "elsewhere")
    assert len(rig.retries.waiting("inbox")) == 10


def test_a_work_folder_that_may_not_be_written_is_no_fault_of_the_files(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = barring("rename_noreplace", "a.jpg", errno.EACCES)
    monkeypatch.setattr(source_module, "rename_noreplace", barred)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != rig.spool.work.path)
    rig.drop("a.jpg", "picture:Edema")
    for _ in range(60):
        rig.tick(0.5)
        assert "files" not in rig.health.problems
    assert rig.health.problems["work"].component == "inbox"


def test_with_once_a_file_that_cannot_be_taken_is_told_when_the_others_are_filed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = barring("rename_noreplace", "bad.jpg", errno.EACCES)
    monkeypatch.setattr(source_module, "rename_noreplace", barred)
    monkeypatch.setattr(rig.daemon, "_nap", lambda: rig.tick(0.5))
    rig.drop("bad.jpg", "picture:Edema#bad")
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    rig.daemon.run(once=True)
    audit.check(rig.root, arrived, inbox=rig.root / "elsewhere")
    assert rig.daemon.left == {"forbidden": 1}


# -- a step that fails --------------------------------------------------------------------


def test_what_is_claimed_is_filed_though_nothing_more_can_be_claimed(rig: Rig) -> None:
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(2)]
    claim = rig.spool.inbox.claim

    def full(path: str, image_id: int) -> bool:
        if path.startswith("z"):
            raise Unavailable("inbox", "the disk is full")
        return claim(path, image_id)

    rig.spool.inbox.claim = full  # type: ignore[method-assign]
    for number in range(10):
        rig.drop(f"z{number}.jpg", f"picture:Edema#z{number}")
    rig.ticks(200)
    audit.check(rig.root, arrived, inbox=rig.root / "elsewhere")


@pytest.mark.parametrize("folder", ["rejected", "classified_images", "duplicates"])
def test_a_folder_of_results_that_is_tidied_away_while_nothing_comes_is_made_anew(
    folder: str, rig: Rig
) -> None:
    rig.daemon._timetable = _timetable(rig.settings)  # the disks of the real service
    rig.ticks(10)
    shutil.rmtree(rig.root / folder)
    rig.ticks(10)
    arrived = [rig.drop("a.jpg", "picture:Edema"), rig.drop("b.jpg", "no picture")]
    rig.ticks(30)
    audit.check(rig.root, arrived)
    assert not rig.health.problems


def test_an_image_that_could_not_be_begun_again_is_not_forgotten(tmp_path: Path) -> None:
    arrived = killed_with_claims(tmp_path, 3)
    rig = Rig(tmp_path)
    failing(rig.ledger, "count_attempts", Unavailable("disk", "it is full"), times=3)
    rig.ticks(200)
    audit.check(rig.root, arrived)
    rig.crash()


def test_claims_that_could_not_be_dropped_are_looked_after(rig: Rig) -> None:
    rig.tick()  # recovery drops claims too
    arrived = [rig.drop("a.jpg", "picture:Edema")]
    rig.drop("b.jpg", "picture:Effusion")
    claim = rig.spool.inbox.claim

    def gone(path: str, image_id: int) -> bool:
        return path != "b.jpg" and claim(path, image_id)

    rig.spool.inbox.claim = gone  # type: ignore[method-assign]
    failing(rig.ledger, "drop_claims", Unavailable("disk", "it is full"), times=1)
    rig.ticks(10)
    (rig.inbox / "b.jpg").unlink()
    rig.ticks(100)
    audit.check(rig.root, arrived)
    assert not list(rig.ledger.open_rows())


def test_no_image_is_blamed_for_a_network_that_cannot_be_had(tmp_path: Path) -> None:
    arrived = killed_with_claims(tmp_path, 1)
    for _ in range(10):
        rig = Rig(tmp_path)
        rig.daemon._engine = Future()
        rig.ticks(5)
        rig.crash()
    rig = Rig(tmp_path)
    rig.settle()
    audit.check(rig.root, arrived)
    assert audit.jsonl_records(rig.root)[0]["risk_level"] == "High"
    rig.crash()


def killed_with_claims(root: Path, count: int) -> list[bytes]:
    """A service that was killed when it had claimed its files."""
    rig = Rig(root)
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(count)]
    rig.pipeline.finish = lambda: None  # type: ignore[method-assign]
    rig.ticks(10)
    rig.crash()
    return arrived


def test_equal_files_of_one_batch_are_set_aside_but_for_the_first(tmp_path: Path) -> None:
    rig = Rig(tmp_path, duplicates="set-aside")
    arrived = [rig.drop(f"{name}.jpg", "picture:Edema") for name in "abc"]
    arrived.append(rig.drop("d.jpg", "picture:Effusion"))
    rig.settle()
    audit.check(rig.root, arrived)
    folders = sorted(r["saved_path"].split("/")[0] for r in audit.jsonl_records(rig.root))
    assert folders == ["classified_images"] * 2 + ["duplicates"] * 2
    rig.crash()


def test_an_upload_whose_batch_meets_an_inbox_that_is_away_is_filed_when_it_is_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_file: SeenFile, **_how: bool) -> None:
        raise Unavailable("inbox", "The share is away.")

    rig.tick()
    arrived = [rig.drop("a.jpg", "picture:Edema"), b"picture:Fracture"]
    while rig.arrivals.next_batch_s() is None:
        rig.tick(0.5)
    upload = Upload(rig.spool.handover.folder, upload_name("20261123T120000-0123456789ab", 0))
    upload.write(b"picture:Fracture")
    upload.hand_over("b.jpg")
    with monkeypatch.context() as for_a_while:
        for_a_while.setattr(rig.spool.inbox, "readiness", away)
        rig.tick()
        assert rig.health.problems
    rig.ticks(120)
    audit.check(rig.root, arrived)


# -- who goes first -----------------------------------------------------------------------


def test_an_upload_and_an_urgent_film_are_filed_within_two_batches_of_an_archive(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, urgent=["ER"])
    arrived = [rig.drop(f"archive/{n:04}.jpg", f"picture:Edema#{n}") for n in range(300)]
    while len(rig.engine.batches) < 3:  # the archive is on its way, other batches in hand
        rig.tick(0.5)
    arrived.append(rig.drop("ER/now.jpg", "picture:Fracture"))
    while not any(arrival.file.path == "ER/now.jpg" for arrival in settled(rig)):
        rig.tick(0.5)
    folder = rig.spool.handover.folder
    upload = Upload(folder, upload_name("20261123T120000-0123456789ab", 0))
    upload.write(b"picture:Effusion")
    upload.hand_over("u.jpg")
    arrived.append(b"picture:Effusion")
    before = len(audit.jsonl_records(rig.root))
    rig.ticks(1)
    assert len(audit.jsonl_records(rig.root)) == before + 2 * 16
    names = [record["filename"] for record in audit.jsonl_records(rig.root)]
    assert {"now.jpg", "u.jpg"} <= set(names[before:])
    rig.settle()
    audit.check(rig.root, arrived)
    rig.crash()


def settled(rig: Rig) -> list[Arrival]:
    """Files whose settle time will be over at the next turn."""
    now_s = rig.clock.monotonic_s() + 0.5
    waiting = rig.settling._waiting.values()
    return [
        Arrival(w.file, 0.0, 0.0, Origin(INBOX, w.file.path))
        for w in waiting
        if w.unchanged_since_s + 2 <= now_s
    ]
