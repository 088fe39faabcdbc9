"""`mounts`: which file system a folder lies on, and folders whose share has gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mounted import fake_mounts
from xray_watcher.errors import Unavailable
from xray_watcher.system import mounts
from xray_watcher.system.mounts import (
    GuardedFolder,
    find_mount,
    has_vanished,
    is_network,
    is_network_device,
)


@pytest.mark.parametrize("name", ["nas", "ακτινογραφίες", "the x-rays", "back\\slash"])
def test_a_share_is_known_whatever_its_mount_point_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / name
    (point / "inbox").mkdir(parents=True)
    monkeypatch.setattr(mounts, "_MOUNTS", fake_mounts(tmp_path, str(point), "cifs"))
    found = find_mount(str(point / "inbox"))
    assert (found.kind, found.source, found.is_network) == ("cifs", "//nas/xray", True)
    assert not is_network(str(tmp_path))
    assert is_network_device(os.makedev(0, 51))
    assert not is_network_device(os.makedev(254, 0))


def test_the_kernel_s_own_list_is_understood() -> None:
    assert find_mount("/proc/self").kind == "proc"
    assert find_mount("/").point == "/"


def test_a_folder_that_was_tidied_away_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    place = GuardedFolder(str(folder))
    place.keep()
    assert folder.is_dir()


def test_a_folder_is_not_made_where_its_share_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = GuardedFolder(str(tmp_path / "logs"))
    monkeypatch.setattr(mounts, "_nearest_device", lambda _folder: -1)
    with pytest.raises(Unavailable, match="Is its share mounted"):
        place.keep()
    assert not (tmp_path / "logs").exists()


def test_a_share_that_was_mounted_again_has_another_device_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_MOUNTS", fake_mounts(tmp_path, str(tmp_path), "nfs4"))
    place = GuardedFolder(str(tmp_path / "logs"))
    monkeypatch.setattr(mounts, "_nearest_device", lambda _folder: 77)
    place.keep()
    monkeypatch.setattr(
        mounts, "_MOUNTS", fake_mounts(tmp_path, str(tmp_path), "nfs4", "other:/export")
    )
    monkeypatch.setattr(mounts, "_nearest_device", lambda _folder: 78)
    with pytest.raises(Unavailable):
        place.keep()


def test_a_file_has_vanished_only_if_its_folder_has_not(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert not has_vanished(str(tmp_path / "there"))
    assert has_vanished(str(tmp_path / "gone"))
    with pytest.raises(Unavailable, match="Is its share mounted"):
        has_vanished(str(tmp_path / "no-folder" / "gone"))
