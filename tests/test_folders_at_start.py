"""Folders at the start: a root that was moved goes on, and the work folder is its owner's."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from rig import Rig
from xray_watcher.config.settings import IntakeSettings, Settings
from xray_watcher.errors import ConfigError, Unavailable
from xray_watcher.intake.handover import Upload, uploads_folder
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.service.folders import prepare_folders
from xray_watcher.system.files import keep_to_owner
from xray_watcher.system.mounts import GuardedFolder

STATE = "claimed", "decided", "filed but not logged", "not claimed yet"


@pytest.fixture
def crashed(tmp_path: Path) -> tuple[Path, Settings]:
    """A service that was killed with four open images, each in another state, and moved then."""
    old, new = tmp_path / "old", tmp_path / "new"
    rig = Rig(old)
    settings = Settings(root=str(old), state_dir=str(tmp_path / "state"))
    prepare_folders(settings, rig.ledger, lambda: None)  # notes the inbox
    for number, _ in enumerate(STATE):
        rig.drop(f"{number}.jpg", f"picture:Edema#{number}")
    rig.settle()
    ids = dict(rig.ledger.db.sqlite.execute("SELECT idx, id FROM image").fetchall())
    high = old / "classified_images" / "High"
    for index, state in enumerate(("CLAIMED", "FILING", "FILING", "CLAIMING")):
        (filed,) = high.glob(f"{index:04d}_*")
        if index in (0, 1):
            filed.rename(rig.spool.work.claimed_path(ids[index]))
        elif index == 3:
            filed.rename(rig.inbox / "3.jpg")
        rig.ledger.db.sqlite.execute("UPDATE image SET state = ? WHERE id = ?", (state, ids[index]))
    rig.crash()
    shutil.copytree(old / "state", tmp_path / "state", dirs_exist_ok=True)
    old.rename(new)
    return new, Settings(root=str(new), state_dir=str(tmp_path / "state"))


def test_a_root_that_was_moved_whole_goes_on(crashed: tuple[Path, Settings]) -> None:
    root, settings = crashed
    with Ledger(settings.folders.ledger) as ledger:
        spool, _ = prepare_folders(settings, ledger, lambda: None)
        assert spool.work.path == str(root / ".xray-watcher")
        assert ledger.meta("inbox") == str(root / "inbox")
        assert len(ledger.open_rows()) == 4


@pytest.mark.parametrize("lost", [".xray-watcher", "classified_images", "inbox/3.jpg", "inbox"])
def test_it_does_not_when_an_image_is_missing_there(
    crashed: tuple[Path, Settings], lost: str
) -> None:
    root, settings = crashed
    os.rename(root / lost, root / "lost")
    with Ledger(settings.folders.ledger) as ledger:
        with pytest.raises(ConfigError, match="not all of them lie in the new folders"):
            prepare_folders(settings, ledger, lambda: None)
        assert ledger.meta("inbox") != str(root / "inbox"), "nothing was begun"


@pytest.fixture
def with_upload(tmp_path: Path) -> tuple[Settings, Settings, Path]:
    """Settings of two inboxes, and an upload that waits unclaimed beside the first."""
    first, second = (
        Settings(
            root=str(tmp_path / "root"),
            state_dir=str(tmp_path),
            intake=IntakeSettings(inbox=str(tmp_path / name)),
        )
        for name in ("first", "second")
    )
    with Ledger(first.folders.ledger) as ledger:
        work = prepare_folders(first, ledger, lambda: None)[0].work.path
    uploads = Path(uploads_folder(work))
    uploads.mkdir()
    upload = Upload(str(uploads), "20261123T120000-0123456789ab-000000")
    upload.write(b"picture:Edema")
    upload.hand_over("a.jpg")
    return first, second, uploads


def test_the_inbox_is_not_changed_while_an_upload_waits_beside_the_old_one(
    with_upload: tuple[Settings, Settings, Path],
) -> None:
    first, second, uploads = with_upload
    with Ledger(first.folders.ledger) as ledger:
        with pytest.raises(ConfigError, match="1 uploads that are not claimed wait in"):
            prepare_folders(second, ledger, lambda: None)
        assert ledger.meta("inbox") == first.folders.inbox
        next(uploads.glob("*.image")).unlink()
        prepare_folders(second, ledger, lambda: None)
        assert ledger.meta("inbox") == second.folders.inbox


def test_a_work_folder_on_another_mount_is_kept_while_an_upload_waits_in_it(
    with_upload: tuple[Settings, Settings, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, _, uploads = with_upload
    work = uploads.parent.rename(tmp_path / "on-another-mount")
    monkeypatch.setattr("xray_watcher.service.folders.is_same_mount", lambda *_: False)
    with Ledger(first.folders.ledger) as ledger:
        ledger.set_meta("work", str(work))
        assert prepare_folders(first, ledger, lambda: None)[0].work.path == str(work)
        next(work.glob("uploads/*.image")).unlink()
        assert prepare_folders(first, ledger, lambda: None)[0].work.path != str(work)


def test_a_stranger_s_work_folder_with_the_same_numbers_is_not_taken_over(
    crashed: tuple[Path, Settings],
) -> None:
    root, settings = crashed
    for path in (root / ".xray-watcher").glob("0*"):
        path.write_bytes(b"another")
    with Ledger(settings.folders.ledger) as ledger, pytest.raises(ConfigError):
        prepare_folders(settings, ledger, lambda: None)


def test_a_folder_whose_file_system_does_not_answer_is_named_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_arguments: object, **_named: object) -> os.stat_result:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(Unavailable, match="It cannot be seen what"):
        GuardedFolder(str(tmp_path))


def test_a_default_acl_of_the_inbox_opens_the_work_folder_in_it_to_nobody(tmp_path: Path) -> None:
    entries = [(0x01, 7), (0x04, 7), (0x10, 7), (0x20, 0)]  # owner, group, mask, others
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, permissions, 0xFFFFFFFF) for tag, permissions in entries
    )
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    try:
        os.setxattr(inbox, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("this file system has no ACLs")
    (inbox / "probe").mkdir()
    assert (inbox / "probe").stat().st_mode & 0o020, "what is made there is the group's to write"
    work = inbox / ".xray-watcher"
    settings = Settings(
        root=str(tmp_path / "other"),
        state_dir=str(tmp_path),
        intake=IntakeSettings(inbox=str(inbox)),
    )
    with Ledger(settings.folders.ledger) as ledger:
        assert prepare_folders(settings, ledger, lambda: None)[0].work.path == str(work)
    assert not work.stat().st_mode & 0o022
    (work / "uploads").mkdir(mode=0o750)
    assert not (work / "uploads").stat().st_mode & 0o022, "nor is what is made in it"
    os.rename(work, tmp_path / "elsewhere")
    work.symlink_to(tmp_path / "elsewhere")
    os.chmod(tmp_path / "elsewhere", 0o770)
    with pytest.raises(OSError, match="Not a directory"):
        keep_to_owner(str(work))
    assert (tmp_path / "elsewhere").stat().st_mode & 0o020, "no link is followed"
