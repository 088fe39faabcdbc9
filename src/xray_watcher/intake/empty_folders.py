"""Removes the empty folders that senders leave in the inbox, if that is wanted.

Some devices make a folder for each study; each look at the inbox lists them all, for ever. Others
expect a folder of theirs to stay, so nothing is removed unless `[intake]` says after how many days.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import islice

import structlog

from xray_watcher.core.times import from_us
from xray_watcher.intake.nofollow import FOLDER, open_parent
from xray_watcher.system.clock import Clock

SEEN_S = 3600.0
"""A folder is seen empty and unchanged for this long, whatever the clock on the wall says."""

_FOLDERS_A_TURN = 200
_LOOK_S = 3600.0

_log = structlog.get_logger()

_State = tuple[int, int]  # inode and time of the last change: they show that a folder stayed empty


class EmptyFolders:
    """The chore.

    Args:
        inbox: the folders of its first level stay; they are the sources.
        ignore: patterns of names that are left alone, in lower case.
        days: how long a folder must have been unchanged, by its own time.
        clock: the time.
    """

    component = "empty-folders"

    def __init__(self, inbox: str, ignore: Sequence[str], days: int, clock: Clock) -> None:
        self._inbox = inbox
        self._ignore = tuple(pattern.lower() for pattern in ignore)
        self._age = timedelta(days=days)
        self._clock = clock
        self._next_s = float("-inf")
        self._round: Iterator[None] | None = None
        self._removed = 0
        self._empty: dict[str, tuple[_State, float]] = {}  # since when, on the monotonic clock

    @property
    def next_due_s(self) -> float:
        """When there is something to do, on the monotonic clock."""
        return self._next_s

    def refresh(self, now_s: float) -> None:
        """Look at some folders; a whole round is made once an hour."""
        if now_s < self._next_s:
            return
        if self._round is None:
            self._round, self._removed = self._looks(), 0
        if len(list(islice(self._round, _FOLDERS_A_TURN))) == _FOLDERS_A_TURN:
            return
        self._round, self._next_s = None, now_s + _LOOK_S
        if self._removed:
            _log.info("empty folders removed", code="empty_folders_removed", folders=self._removed)

    def stop(self) -> None:
        """Nothing is open between two turns."""

    def _looks(self) -> Iterator[None]:
        """One round, a folder a step; what fails at a folder is left to the next round."""
        before, self._empty = self._empty, {}
        to_do = [name for name, is_folder in self._listed("") if is_folder]
        while to_do:
            path = to_do.pop()
            entries = self._listed(path)
            to_do += [f"{path}/{name}" for name, is_folder in entries if is_folder]
            yield
            if "/" in path and not entries:
                with suppress(OSError):
                    self._judge(path, before)

    def _listed(self, path: str) -> list[tuple[str, bool]]:
        """The entries of a folder below the inbox, and which of them are folders to look into."""
        with (
            suppress(OSError),
            open_parent(self._inbox, f"{path}/x" if path else "x") as fd,
            os.scandir(fd) as entries,
        ):
            return [(entry.name, self._is_looked_into(entry)) for entry in entries]
        return []

    def _is_looked_into(self, entry: os.DirEntry[str]) -> bool:
        name = entry.name.lower()
        is_ignored = any(fnmatchcase(name, pattern) for pattern in self._ignore)
        return not name.startswith(".") and not is_ignored and entry.is_dir(follow_symlinks=False)

    def _judge(self, path: str, before: dict[str, tuple[_State, float]]) -> None:
        """Remove a folder if it is empty and old enough by both clocks."""
        name = os.path.basename(path)
        with open_parent(self._inbox, path) as parent:
            fd = os.open(name, FOLDER, dir_fd=parent)
            try:
                if os.listdir(fd):
                    return
                status = os.fstat(fd)
            finally:
                os.close(fd)
            state, now_s = (status.st_ino, status.st_mtime_ns), self._clock.monotonic_s()
            known, since_s = before.get(path, (state, now_s))
            self._empty[path] = (state, since_s if known == state else now_s)
            is_old = self._clock.now() - from_us(status.st_mtime_ns // 1000) >= self._age
            is_seen = now_s - self._empty[path][1] >= SEEN_S
            if is_old and is_seen:
                os.rmdir(name, dir_fd=parent)  # the kernel refuses if something came meanwhile
                del self._empty[path]
                self._removed += 1
