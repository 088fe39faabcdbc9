"""`files`: renames that never overwrite, and writes that are whole or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xray_watcher.errors import StorageFailure
from xray_watcher.system import files
from xray_watcher.system.files import probe


@pytest.fixture(params=["renameat2", "link", "placeholder"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the three ways to rename without overwriting, as file systems allow them."""

    class Refusing:
        def renameat2(self, *_args: Any) -> int:
            import ctypes  # noqa: PLC0415

            ctypes.set_errno(22)
            return -1

    def no_links(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(95, "Operation not supported")

    if request.param != "renameat2":
        monkeypatch.setattr(files, "_libc", Refusing())
    if request.param == "placeholder":
        monkeypatch.setattr(files.os, "link", no_links)
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_a_rename_moves_and_never_overwrites(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("ours")
    files.rename_noreplace(str(source), str(target))
    assert target.read_text() == "ours"
    source.write_text("more of ours")
    with pytest.raises(FileExistsError):
        files.rename_noreplace(str(source), str(target))
    assert (source.read_text(), target.read_text()) == ("more of ours", "ours")


@pytest.mark.usefixtures("way")
def test_a_dangling_link_with_the_target_s_name_is_not_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("ours")
    target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        files.rename_noreplace(str(source), str(target))
    assert source.exists()


@pytest.mark.usefixtures("way")
def test_a_name_of_our_own_is_taken_in_one_step_whatever_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("a kill here would leave the file under two names")

    monkeypatch.setattr(files.os, "link", killed)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("ours")
    files.rename_noreplace(str(source), str(target), is_own_name=True)
    assert (target.read_text(), source.exists()) == ("ours", False)
    source.write_text("more of ours")
    with pytest.raises(FileExistsError):
        files.rename_noreplace(str(source), str(target), is_own_name=True)


def test_a_copy_keeps_bytes_mode_and_time(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(os.urandom(3_000_000))
    os.chmod(source, 0o604)
    os.utime(source, ns=(1_000_000_007, 1_234_567_890_123))
    files.copy(str(source), str(target))
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode == source.stat().st_mode
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns


def test_a_whole_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".json")
    for content in (b"one", b"another"):
        files.write_whole(str(path), content, 0o640)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == [path.name]


def test_a_whole_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    files.write_whole(str(path), b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageFailure):
        files.write_whole(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_link_with_the_name_of_the_part_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: Callable[[str, str], None]
) -> None:
    """Or whoever has the folder would get any file of ours written."""
    folder, secret = tmp_path / "theirs", tmp_path / "secret"
    folder.mkdir()
    parts: list[str] = []
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda part, _path: parts.append(part))
    files.write_whole(str(folder / "log"), b"first")
    monkeypatch.setattr(files.os, "replace", replace)
    secret.write_bytes(b"of ours")
    os.unlink(parts[0])
    link(str(secret), parts[0])
    files.write_whole(str(folder / "log"), b"new")
    assert secret.read_bytes() == b"of ours"
    assert (folder / "log").read_bytes() == b"new"
    assert os.listdir(folder) == ["log"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_of_facts_holds_none_and_nobody_waits(
    tmp_path: Path, make: Callable[[str], None]
) -> None:
    make(str(tmp_path / "facts"))
    assert files.read_facts(str(tmp_path / "facts")) == {}


def test_a_write_that_the_disk_cuts_short_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    monkeypatch.setattr(files.os, "pwrite", lambda fd, data, at: write(fd, data[:3], at))
    with (tmp_path / "x").open("wb") as file:
        files.write_all(file.fileno(), b"0123456789", 0)
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_write_that_gets_no_byte_onto_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "pwrite", lambda *_args: 0)
    with (tmp_path / "x").open("wb") as file, pytest.raises(OSError, match="space"):
        files.write_all(file.fileno(), b"0123456789", 0)


@pytest.mark.parametrize(("number", "fatal"), [(5, True), (28, True), (22, False), (95, False)])
def test_a_flush_that_fails_is_fatal_unless_the_file_system_has_none(
    number: int, fatal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", failing)
    if not fatal:
        files.sync_folder(str(tmp_path))
        return
    with pytest.raises(StorageFailure) as raised:
        files.sync_folder(str(tmp_path))
    assert raised.value.exit_code == 74


@pytest.mark.parametrize("step", ["rename", "unlink"])
def test_what_a_killed_probe_left_goes_away_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, killed)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        probe(str(tmp_path))
    monkeypatch.undo()
    assert os.listdir(tmp_path)
    probe(str(tmp_path))
    assert not os.listdir(tmp_path)


def test_a_file_that_moves_to_another_file_system_has_its_name_there_before_it_is_removed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut would leave it under the name of a part alone, or nowhere."""
    steps: list[str] = []
    rename, flush, unlink = files.rename_noreplace, files.flush, os.unlink

    def across(source: str, target: str, **how: bool) -> None:
        if source.endswith("source"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target, is_own_name=how["is_own_name"])
        steps.append("rename")

    def noted_sync(fd: int) -> None:
        flush(fd)
        steps.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")

    def noted_unlink(path: str) -> None:
        unlink(path)
        steps.append(f"unlink {Path(path).name}")

    monkeypatch.setattr(files, "rename_noreplace", across)
    monkeypatch.setattr(files, "flush", noted_sync)
    monkeypatch.setattr(files.os, "unlink", noted_unlink)
    (tmp_path / "there").mkdir()
    source, target = tmp_path / "source", tmp_path / "there" / "target"
    source.write_text("ours")
    files.move(str(source), str(target), str(target.with_name("part")))
    assert steps == ["sync part", "rename", "sync there", "unlink source"]
    assert target.read_text() == "ours"
    assert os.listdir(tmp_path) == ["there"]


def test_a_move_to_another_file_system_that_fails_leaves_no_part_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(*_names: str, **_folders: int) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(files, "rename_noreplace", across)
    source = tmp_path / "source"
    source.write_text("ours")
    (tmp_path / "there").mkdir()
    there = str(tmp_path / "there")
    with pytest.raises(OSError, match="cross"):
        files.move(str(source), f"{there}/target", f"{there}/part")
    assert source.read_text() == "ours"
    assert os.listdir(tmp_path / "there") == []


def test_a_read_that_says_try_again_is_no_end_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffered reader returns None then, which would end a copy early, or the service."""
    source = tmp_path / "source"
    source.write_text('{"a": 1}')

    def refusing(*_args: object) -> bytes:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(files.os, "read", refusing)
    monkeypatch.setattr(files.os, "pread", refusing)
    with pytest.raises(BlockingIOError):
        files.copy(str(source), str(tmp_path / "target"))
    with pytest.raises(BlockingIOError):
        files.load_facts(str(source))
    assert files.read_facts(str(source)) == {}


def test_a_name_that_cannot_be_removed_after_a_link_is_no_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPERM of the unlink was taken for that: the file was then filed twice, under two names."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("ours")

    def refusing(_path: str, **_how: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(files, "_libc", SimpleNamespace(renameat2=lambda *_: -1))
    monkeypatch.setattr(files.ctypes, "get_errno", lambda: errno.EINVAL)
    monkeypatch.setattr(files.os, "unlink", refusing)
    with pytest.raises(PermissionError):
        files.rename_noreplace(str(source), str(target))
    assert source.read_text() == target.read_text() == "ours"
