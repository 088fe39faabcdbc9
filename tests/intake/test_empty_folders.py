"""Empty folders below the first level go after days, one by one; nothing else ever does."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from rig import HandClock
from xray_watcher.intake.empty_folders import EmptyFolders

HOUR_S, DAY_S = 3600.0, 86_400.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def put(inbox: Path, clock: HandClock, *names: str, days: float = 10) -> None:
    """Make folders (or a file, where the name has an ending) that changed so long ago."""
    for name in names:
        path = inbox / name
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
    at = clock.now().timestamp() - days * DAY_S
    for path in inbox.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (at, at))


def rounds(chore: EmptyFolders, clock: HandClock, hours: int) -> None:
    for _ in range(hours):
        while chore.next_due_s <= clock.monotonic_s():
            chore.refresh(clock.monotonic_s())
        clock.passed_s += HOUR_S


def left(inbox: Path) -> list[str]:
    return sorted(str(path.relative_to(inbox)) for path in inbox.rglob("*"))


def test_an_empty_folder_goes_when_it_is_old_and_was_seen_for_an_hour(
    tmp_path: Path, clock: HandClock
) -> None:
    put(tmp_path, clock, "ct/study1", "ct/study2/film.jpg", "empty", ".hidden/a", "@eaDir/b/c")
    chore = EmptyFolders(str(tmp_path), ("@eaDir", "*.part"), 7, clock)
    before = left(tmp_path)
    rounds(chore, clock, 1)
    assert left(tmp_path) == before, "seen for the first time"
    rounds(chore, clock, 1)
    assert left(tmp_path) == [name for name in before if name != "ct/study1"]
    rounds(chore, clock, 24 * 30)
    assert left(tmp_path) == [name for name in before if name != "ct/study1"]


def test_a_young_one_stays_and_a_nest_goes_from_within(tmp_path: Path, clock: HandClock) -> None:
    put(tmp_path, clock, "ct/a/b/c", days=6)
    chore = EmptyFolders(str(tmp_path), (), 7, clock)
    rounds(chore, clock, 23)
    assert (tmp_path / "ct/a/b/c").exists()
    rounds(chore, clock, 3)
    assert not (tmp_path / "ct/a/b/c").exists()
    assert (tmp_path / "ct/a/b").exists(), "it has just changed"


def test_a_clock_that_jumps_ahead_removes_nothing_that_was_not_watched(
    tmp_path: Path, clock: HandClock
) -> None:
    put(tmp_path, clock, "ct/new", days=0)
    chore = EmptyFolders(str(tmp_path), (), 7, clock)
    clock.set_to(clock.now() + timedelta(days=2000))
    for _ in range(3):
        clock.passed_s += 600
        chore._next_s = float("-inf")
        rounds(chore, clock, 0)
        chore.refresh(clock.monotonic_s())
        os.utime(tmp_path / "ct/new")  # its device is at work there
    assert (tmp_path / "ct/new").exists()


def test_no_link_is_followed_and_none_is_removed(tmp_path: Path, clock: HandClock) -> None:
    outside, inbox = tmp_path / "outside", tmp_path / "inbox"
    put(outside, clock, "study/empty")
    put(inbox, clock, "ct/real")
    (inbox / "ct" / "link").symlink_to(outside / "study")
    (inbox / "mr").symlink_to(outside)
    rounds(EmptyFolders(str(inbox), (), 7, clock), clock, 3)
    assert left(inbox) == ["ct", "ct/link", "mr"]
    assert (outside / "study" / "empty").exists()


def test_a_round_is_cut_into_turns_and_a_folder_that_fails_keeps_no_other(
    tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, clock, *(f"ct/{number}" for number in range(500)))
    real = os.rmdir

    def failing(name: str, *, dir_fd: int | None = None) -> None:
        if name == "7":
            raise PermissionError(1, "Operation not permitted")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", failing)
    chore = EmptyFolders(str(tmp_path), (), 7, clock)
    chore.refresh(clock.monotonic_s())
    assert chore.next_due_s < clock.monotonic_s(), "there is more to do in the next turn"
    rounds(chore, clock, 2)
    assert left(tmp_path) == ["ct", "ct/7"]


def test_an_inbox_that_is_away_is_left_to_those_who_look_at_it(
    tmp_path: Path, clock: HandClock
) -> None:
    rounds(EmptyFolders(str(tmp_path / "gone"), (), 7, clock), clock, 2)
