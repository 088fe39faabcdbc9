"""Which files in the inbox are complete, as far as watching them shows.

A file has settled when its size, time and inode stayed the same for the settle time on
the monotonic clock, over at least two scans. The cases this exists for: slow and stalled
network copies, size set first and content later, modification time set back at the end,
temp-then-rename, a file that vanishes before it settles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from xray_watcher.core.values import INBOX, Arrival, Origin, SeenFile

MIN_SCANS = 2

_OTHER_INODES = 3
"""So many scans in a row that differ in the inode alone show that it is no identity there."""


@dataclass(slots=True)
class _WatchedFile:
    """What is remembered of one file between scans."""

    file: SeenFile
    first_seen_s: float
    unchanged_since_s: float
    last_scan_s: float
    scans: int = 1
    unfinished: bool = False
    held_until_s: float | None = None
    was_held: bool = False  # and it is unchanged since
    released: bool = False
    other_inodes: int = 0

    def sees_the_same(self, file: SeenFile) -> bool:
        """Whether a file is as it was; some file systems make up a new inode at each scan."""
        if self.file == file:
            self.other_inodes = 0
            return True
        if (self.file.size, self.file.mtime_ns) != (file.size, file.mtime_ns):
            return False
        self.other_inodes += 1
        if self.other_inodes >= _OTHER_INODES:
            self.file = replace(file, inode=0)
        return self.file.inode == 0


class Settling:
    """Follows the files of the inbox from scan to scan; lives as long as the daemon.

    Args:
        settle_s: seconds without change after which a file counts as complete; may be set anew,
            for a share may come to lie where there was none.
        incomplete_after_s: seconds without change after which even a file that does not
            look whole is handed on, so that it is rejected and not left for ever.
    """

    def __init__(self, settle_s: float, incomplete_after_s: float) -> None:
        self.settle_s = settle_s
        self._incomplete_after_s = incomplete_after_s
        self._watched: dict[str, _WatchedFile] = {}
        self._waiting: dict[str, _WatchedFile] = {}  # those of _watched that are not handed on
        self._forgotten: set[str] = set()  # since the present scan began

    def __len__(self) -> int:
        """Number of files that are followed, handed-on ones that still lie there included."""
        return len(self._watched)

    @property
    def waiting(self) -> int:
        """Number of files that have not settled yet."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """Number of files that do not look whole and are given time to change."""
        return sum(watch.unfinished for watch in self._waiting.values())

    @property
    def held(self) -> int:
        """Number of files that are left alone until their next try."""
        return sum(watch.held_until_s is not None for watch in self._waiting.values())

    def was_held(self, path: str) -> bool:
        """Whether a file is there and unchanged since it was held."""
        watch = self._watched.get(path)
        return watch is not None and watch.was_held

    @property
    def unfinished_files(self) -> list[tuple[str, float, float]]:
        """Path, when it last changed and when it is overdue, of files that do not look whole."""
        return [
            (path, w.unchanged_since_s, self._settles_s(w))
            for path, w in self._waiting.items()
            if w.unfinished
        ]

    @property
    def oldest_seen_s(self) -> float | None:
        """When the file that is there longest was first seen; None when there is none."""
        return min((watch.first_seen_s for watch in self._watched.values()), default=None)

    @property
    def first_seen_s(self) -> list[float]:
        """When each file that may be taken was first seen."""
        return [watch.first_seen_s for watch in self._watched.values() if not watch.was_held]

    def begin_scan(self) -> None:
        """Begin a scan; a file that is forgotten from now on is gone, even if the scan finds it."""
        self._forgotten.clear()

    def observe(self, files: Iterable[SeenFile], now_s: float) -> None:
        """Take in one whole scan of the inbox; files that are gone are forgotten."""
        self._watched = {
            file.path: self._observe(file, now_s)
            for file in files
            if file.path not in self._forgotten
        }
        self._waiting = {path: w for path, w in self._watched.items() if not w.released}

    def _observe(self, file: SeenFile, now_s: float) -> _WatchedFile:
        watch = self._watched.get(file.path)
        if watch is None:
            return _WatchedFile(file, now_s, now_s, now_s)
        if watch.released or watch.sees_the_same(file):
            watch.scans += 1
            watch.last_scan_s = now_s
            return watch
        return _restart(watch, file, now_s)

    def due(self, now_s: float) -> list[Arrival]:
        """Hand on the files that have settled, longest known first; each is handed on once."""
        watches = [watch for watch in self._waiting.values() if self._is_due(watch)]
        watches.sort(key=lambda w: (w.first_seen_s, w.file.mtime_ns, w.file.path))
        for watch in watches:
            watch.released = True
            del self._waiting[watch.file.path]
        return [self._arrival(watch, now_s) for watch in watches]

    def next_due_s(self) -> float | None:
        """When the next scan may find that a file has settled."""
        return min((self._settles_s(watch) for watch in self._waiting.values()), default=None)

    def postpone(self, path: str, now_s: float) -> None:
        """Start a file's settle time again: it changed after the last scan."""
        watch = self._watched.get(path)
        if watch is not None:
            self._watch_again(_restart(watch, watch.file, now_s))

    def hold(self, path: str, until_s: float, now_s: float) -> None:
        """Leave a file alone until a time, or until it changes; it has been settled before."""
        watch = self._watched.get(path)
        if watch is not None:
            held = _WatchedFile(watch.file, watch.first_seen_s, watch.unchanged_since_s, now_s)
            held.held_until_s, held.was_held = until_s, True
            self._watch_again(held)

    def hold_unfinished(self, path: str) -> None:
        """Hold a file that does not look whole until it changes or is overdue."""
        watch = self._watched.get(path)
        if watch is not None:
            watch.unfinished, watch.released, watch.held_until_s = True, False, None
            self._watch_again(watch)

    def forget(self, path: str) -> None:
        """Stop following a file that has been claimed or has gone."""
        self._watched.pop(path, None)
        self._waiting.pop(path, None)
        self._forgotten.add(path)

    def _watch_again(self, watch: _WatchedFile) -> None:
        self._watched[watch.file.path] = self._waiting[watch.file.path] = watch

    @property
    def _overdue_after_s(self) -> float:
        return max(self._incomplete_after_s, self.settle_s)

    def _settles_s(self, watch: _WatchedFile) -> float:
        if watch.held_until_s is not None:
            return watch.held_until_s
        wait_s = self._overdue_after_s if watch.unfinished else self.settle_s
        return watch.unchanged_since_s + wait_s

    def _is_due(self, watch: _WatchedFile) -> bool:
        """Only the last scan counts: nobody knows what has happened since."""
        return watch.scans >= MIN_SCANS and watch.last_scan_s >= self._settles_s(watch)

    def _arrival(self, watch: _WatchedFile, now_s: float) -> Arrival:
        overdue = now_s >= watch.unchanged_since_s + self._overdue_after_s
        origin = Origin(INBOX, watch.file.path)
        return Arrival(watch.file, watch.first_seen_s, now_s, origin, overdue=overdue)


def _restart(watch: _WatchedFile, file: SeenFile, now_s: float) -> _WatchedFile:
    return _WatchedFile(file, watch.first_seen_s, now_s, now_s, other_inodes=watch.other_inodes)
