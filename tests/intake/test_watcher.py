"""`intake.watcher`: what a look at the inbox finds, and the wake-up that only makes it sooner."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver

from deep import deep_tree
from mounted import fake_mounts
from xray_watcher.config.settings import Settings
from xray_watcher.errors import Unavailable
from xray_watcher.intake.watcher import (
    Inbox,
    NoWakeup,
    Wakeup,
    build_wakeup,
)
from xray_watcher.system import mounts

INTAKE = Settings().intake


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "work").mkdir()
    return Inbox(str(tmp_path / "inbox"), str(tmp_path / "work"), INTAKE.suffixes, INTAKE.ignore)


def put(inbox: Inbox, *names: str | bytes) -> None:
    for name in names:
        path = os.path.join(os.fsencode(inbox.folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x")


@contextmanager
def as_nobody(tmp_path: Path) -> Iterator[None]:
    """Be a user who owns nothing, but may reach the folder of the test."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def paths(inbox: Inbox) -> set[str]:
    return {file.path for file in inbox.look().files}


def test_images_at_any_depth_are_found_and_others_counted(inbox: Inbox) -> None:
    put(inbox, "a.jpg", "B.JPEG", "er/night/1/2/3/c.Png", "notes.txt", "er/report.pdf", "d")
    look = inbox.look()
    assert {file.path for file in look.files} == {"a.jpg", "B.JPEG", "er/night/1/2/3/c.Png"}
    assert look.ignored == 3


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.jpg",
        "a.jpg.part",
        "a.jpg.tmp",
        "a.filepart",
        "a.crdownload",
        "a.jpg~",
        "~$a.jpg",
        "Thumbs.db",
        "THUMBS.DB",
        ".DS_Store",
        "desktop.ini",
    ],
)
def test_temporary_and_hidden_files_are_left_alone(inbox: Inbox, name: str) -> None:
    put(inbox, name)
    look = inbox.look()
    assert look.files == ()
    assert look.ignored == 1


def test_hidden_folders_are_not_entered(inbox: Inbox) -> None:
    put(inbox, ".xray-watcher/a.jpg", ".snapshots/b.jpg", "c.jpg")
    assert paths(inbox) == {"c.jpg"}


def test_links_pipes_and_folders_with_image_names_are_no_images(
    inbox: Inbox, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_text("x")
    folder = Path(inbox.folder)
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (folder / "linked-folder").symlink_to(tmp_path / "elsewhere")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    look = inbox.look()
    assert look.files == ()
    assert look.ignored == 3


def test_names_that_are_no_utf_8_survive(inbox: Inbox) -> None:
    put(inbox, b"\xff\xfe.jpg")
    (path,) = paths(inbox)
    assert os.fsencode(path) == b"\xff\xfe.jpg"


def test_a_look_tells_size_time_and_inode(inbox: Inbox) -> None:
    put(inbox, "a.jpg")
    (file,) = inbox.look().files
    status = os.stat(os.path.join(inbox.folder, "a.jpg"))
    assert (file.size, file.mtime_ns, file.inode) == (1, status.st_mtime_ns, status.st_ino)


@pytest.mark.parametrize("gone", ["inbox", "work"])
def test_a_folder_that_is_away_is_no_empty_inbox(inbox: Inbox, tmp_path: Path, gone: str) -> None:
    shutil.rmtree(tmp_path / gone)
    with pytest.raises(Unavailable, match="mounted"):
        inbox.look()
    (tmp_path / gone).mkdir()
    assert inbox.look().files == ()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_another_file_system_under_the_inbox_is_no_empty_inbox(tmp_path: Path) -> None:
    inbox = Inbox("/dev/shm", str(tmp_path), INTAKE.suffixes, INTAKE.ignore)
    with pytest.raises(Unavailable, match="Another file system"):
        inbox.look()


def test_a_thousand_ignored_files_cost_little_and_are_counted(inbox: Inbox) -> None:
    put(inbox, *(f"{number}.txt" for number in range(1000)))
    assert inbox.look().ignored == 1000


@pytest.fixture
def few_calls() -> Iterator[None]:
    """As many nested calls as Python allows by itself."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("few_calls")
def test_folders_in_folders_a_thousand_deep_are_looked_through(inbox: Inbox) -> None:
    put(inbox, "a.jpg")
    with deep_tree(inbox.folder, "d", 1100) as bottom:
        os.close(os.open("b.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=bottom))
        look = inbox.look()
    assert {file.path for file in look.files} == {"a.jpg", "d/" * 1100 + "b.jpg"}
    assert look.ignored == 0


@pytest.mark.parametrize("depth", [21, 40])
def test_folders_whose_paths_are_too_long_are_left_alone_and_counted(
    inbox: Inbox, depth: int
) -> None:
    put(inbox, "a.jpg")
    with deep_tree(inbox.folder, "n" * 200, depth) as bottom:
        os.close(os.open("b.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=bottom))
        look = inbox.look()
    assert {file.path for file in look.files} == {"a.jpg"}
    assert look.ignored == 1


def test_a_file_whose_path_alone_is_too_long_is_left_alone_and_counted(inbox: Inbox) -> None:
    put(inbox, "a.jpg")
    depth = (4090 - len(os.fsencode(inbox.folder))) // 201  # the folder itself can be listed
    with deep_tree(inbox.folder, "n" * 200, depth) as bottom:
        name = "b" * 210 + ".jpg"
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=bottom))
        look = inbox.look()
    assert {file.path for file in look.files} == {"a.jpg"}
    assert look.ignored == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EUCLEAN])
def test_a_folder_that_cannot_be_read_costs_itself_alone_and_is_named(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    put(inbox, "a.jpg", "theirs/b.jpg")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("theirs"):
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    look = inbox.look()
    assert {file.path for file in look.files} == {"a.jpg"}
    assert look.barred == {"theirs": os.strerror(number)}


@pytest.mark.parametrize("number", [errno.ELOOP, errno.ENAMETOOLONG])
def test_a_link_or_too_long_a_path_is_left_alone_and_counted(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    put(inbox, "a.jpg", "theirs/b.jpg")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("theirs"):
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    look = inbox.look()
    assert {file.path for file in look.files} == {"a.jpg"}
    assert look.ignored == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a while")
def test_a_folder_that_may_be_listed_but_not_entered_does_no_harm(
    inbox: Inbox, tmp_path: Path
) -> None:
    put(inbox, "a.jpg", "theirs/b.jpg", "theirs/c.jpg")
    (Path(inbox.folder) / "theirs").chmod(0o744)
    with as_nobody(tmp_path):
        look = inbox.look()
    assert {file.path for file in look.files} == {"a.jpg"}
    assert set(look.barred) == {"theirs/b.jpg", "theirs/c.jpg"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a while")
def test_an_inbox_that_may_be_listed_but_not_entered_is_out_of_reach(
    inbox: Inbox, tmp_path: Path
) -> None:
    put(inbox, "a.jpg")
    Path(inbox.folder).chmod(0o744)
    with as_nobody(tmp_path), pytest.raises(Unavailable, match="denied"):
        inbox.look()


# -- the wake-up --------------------------------------------------------------------------


def test_a_new_file_wakes(tmp_path: Path) -> None:
    woken = threading.Event()
    wakeup = Wakeup(str(tmp_path), woken.set)
    wakeup.keep_alive()
    try:
        (tmp_path / "a.jpg").write_text("x")
        assert woken.wait(10)
    finally:
        wakeup.close()


def test_an_observer_that_died_is_made_anew(tmp_path: Path) -> None:
    watched = tmp_path / "inbox"
    watched.mkdir()
    woken = threading.Event()
    wakeup = Wakeup(str(watched), woken.set)
    wakeup.keep_alive()
    try:
        observer = wakeup._observer
        assert observer is not None
        for emitter in observer.emitters:
            emitter.stop()
            emitter.join()
        wakeup.keep_alive()
        assert wakeup._observer is not observer
        woken.clear()
        (watched / "a.jpg").write_text("x")
        assert woken.wait(10)
    finally:
        wakeup.close()


def test_a_folder_that_is_away_does_no_harm_to_the_wake_up(tmp_path: Path) -> None:
    wakeup = Wakeup(str(tmp_path / "nowhere"), lambda: None)
    wakeup.keep_alive()
    wakeup.close()


def test_shares_are_looked_at_and_local_folders_wake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(build_wakeup(str(tmp_path), "auto", lambda: None), Wakeup)
    assert isinstance(build_wakeup(str(tmp_path), "poll", lambda: None), NoWakeup)
    monkeypatch.setattr(mounts, "_MOUNTS", fake_mounts(tmp_path, str(tmp_path), "cifs"))
    assert isinstance(build_wakeup(str(tmp_path), "auto", lambda: None), NoWakeup)
    assert isinstance(build_wakeup(str(tmp_path), "events", lambda: None), Wakeup)


def test_a_look_says_when_a_share_has_come_to_lie_there(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not inbox.look().is_network
    monkeypatch.setattr(mounts, "_MOUNTS", fake_mounts(tmp_path, str(tmp_path), "nfs4"))
    inbox._device = 0  # it was another device until now
    assert inbox.look().is_network


def test_the_wake_up_does_not_follow_a_folder_that_was_moved_away(tmp_path: Path) -> None:
    woken = threading.Event()
    folder = tmp_path / "inbox"
    folder.mkdir()
    wakeup = Wakeup(str(folder), woken.set)
    wakeup.keep_alive()
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    wakeup.keep_alive()
    woken.clear()
    (folder / "a.png").touch()
    assert woken.wait(10)
    wakeup.close()


@pytest.mark.usefixtures("few_calls")
def test_a_deep_tree_neither_ends_the_wake_up_nor_comes_without_one(tmp_path: Path) -> None:
    woken = threading.Event()
    folder, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    wakeup = Wakeup(str(folder), woken.set)
    wakeup.keep_alive()
    try:
        with deep_tree(str(elsewhere), "d", 1100):
            (elsewhere / "d").rename(folder / "d")
            assert woken.wait(10)
            wakeup.close()
            wakeup.keep_alive()  # as at a start with the tree there
            woken.clear()
            (folder / "a.png").touch()
            assert woken.wait(10)
            woken.clear()
            (folder / "d").rename(elsewhere / "d")
            assert woken.wait(10)
    finally:
        wakeup.close()


def test_what_the_watching_cannot_do_is_left_to_the_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(*_args: object, **_kwargs: object) -> None:
        raise RecursionError

    monkeypatch.setattr(BaseObserver, "start", too_deep)
    wakeup = Wakeup(str(tmp_path), lambda: None)
    wakeup.keep_alive()
    wakeup.close()
