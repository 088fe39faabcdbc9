"""One file, one folder or one failure that stands in the way does not hold back the others."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import audit
from rig import Rig
from xray_watcher.core.settling import BARRED_S
from xray_watcher.errors import Unavailable
from xray_watcher.intake import spool as spool_module
from xray_watcher.live_parts import timetable


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


def barring(step: str, name: str, kind: int) -> Callable[..., Any]:
    """A step of the spool, but not for files whose names end so."""
    original = getattr(spool_module, step)

    def stepped(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(arg, str) and arg.endswith(name) for arg in args):
            raise OSError(kind, os.strerror(kind))
        return original(*args, **kwargs)

    return stepped


# -- a file that may not be taken ---------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("opened_below", errno.EACCES),  # another user's, mode 0600
        ("opened_below", errno.EBUSY),  # on a share a client holds it
        ("rename_noreplace", errno.EACCES),  # in a folder of another user
        ("rename_noreplace", errno.EXDEV),  # on a disk that is mounted within the inbox
    ],
)
def test_a_file_that_may_not_be_taken_is_told_and_all_others_are_filed(
    step: str, kind: int, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, step, barring(step, "bad.jpg", kind))
    rig.drop("bad.jpg", "picture:Edema#bad")
    rig.ticks(1)
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    rig.ticks(20)
    audit.check(rig.root, arrived, inbox=rig.root / "elsewhere")
    assert [path.name for path in rig.inbox.iterdir()] == ["bad.jpg"]
    assert list(rig.health.troubles) == ["files"]
    assert "1 of the files" in rig.health.troubles["files"].detail
    assert not list(rig.ledger.open_rows())
    monkeypatch.undo()  # somebody gives the permission
    rig.ticks(BARRED_S + 70)
    audit.check(rig.root, [*arrived, b"picture:Edema#bad"])
    assert not rig.health.troubles


def test_many_files_that_may_not_be_taken_keep_no_place_in_the_batches(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = barring("rename_noreplace", "bad.jpg", errno.EACCES)
    monkeypatch.setattr(spool_module, "rename_noreplace", barred)
    for number in range(10):
        rig.drop(f"{number}bad.jpg", f"picture:Edema#bad {number}")
    arrived = [rig.drop(f"z{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    rig.ticks(60)
    audit.check(rig.root, arrived, inbox=rig.root / "elsewhere")
    assert rig.settling.barred == 10


def test_a_work_folder_that_may_not_be_written_is_no_fault_of_the_files(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = barring("rename_noreplace", "a.jpg", errno.EACCES)
    monkeypatch.setattr(spool_module, "rename_noreplace", barred)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != rig.spool.work)
    rig.drop("a.jpg", "picture:Edema")
    rig.ticks(10)
    assert "work" in rig.health.troubles
    assert "files" not in rig.health.troubles


def test_with_once_a_file_that_may_not_be_taken_is_told_when_the_others_are_filed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = barring("rename_noreplace", "bad.jpg", errno.EACCES)
    monkeypatch.setattr(spool_module, "rename_noreplace", barred)
    monkeypatch.setattr(rig.daemon, "_nap", lambda: rig.tick(0.5))
    rig.drop("bad.jpg", "picture:Edema#bad")
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(5)]
    with pytest.raises(Unavailable, match="1 of the files"):
        rig.daemon.run(once=True)
    audit.check(rig.root, arrived, inbox=rig.root / "elsewhere")


# -- a step that fails --------------------------------------------------------------------


def test_what_is_claimed_is_filed_though_nothing_more_can_be_claimed(rig: Rig) -> None:
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(2)]
    claim = rig.spool.claim

    def full(path: str, image_id: int) -> bool:
        if path.startswith("z"):
            raise Unavailable("inbox", "the disk is full")
        return claim(path, image_id)

    rig.spool.claim = full  # type: ignore[method-assign]
    for number in range(10):
        rig.drop(f"z{number}.jpg", f"picture:Edema#z{number}")
    rig.ticks(200)
    audit.check(rig.root, arrived, inbox=rig.root / "elsewhere")


@pytest.mark.parametrize("folder", ["rejected", "classified_images", "duplicates"])
def test_a_folder_of_results_that_is_tidied_away_while_nothing_comes_is_made_anew(
    folder: str, rig: Rig
) -> None:
    rig.daemon._timetable = timetable(rig.settings)  # the disks of the real service
    rig.ticks(10)
    shutil.rmtree(rig.root / folder)
    rig.ticks(10)
    arrived = [rig.drop("a.jpg", "picture:Edema"), rig.drop("b.jpg", "no picture")]
    rig.ticks(30)
    audit.check(rig.root, arrived)
    assert not rig.health.troubles


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
    claim = rig.spool.claim

    def gone(path: str, image_id: int) -> bool:
        return path != "b.jpg" and claim(path, image_id)

    rig.spool.claim = gone  # type: ignore[method-assign]
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
