"""Looks at the inbox: the scan is the truth, file-system events only make it come sooner.

Every watcher library that was measured loses files silently (RELIABILITY.md, 0.1); a scan
of 10,000 files costs 44 ms. So watchdog is used on local file systems alone, to wake the
daemon, and its observer is made anew when its emitter has died.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from xray_watcher.core.values import SeenFile
from xray_watcher.errors import Unavailable

NETWORK_FILE_SYSTEMS = ("cifs", "smb", "nfs", "fuse", "9p", "ceph", "glusterfs", "afs", "lustre")
"""Beginnings of file-system types on which other hosts write without an event here."""

_MOUNTS = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the inbox found.

    Attributes:
        files: regular files of handled types, at any depth.
        ignored: number of entries that are left alone: hidden, temporary, other types,
            links, devices, pipes, and folders that may not be read.
    """

    files: tuple[SeenFile, ...]
    ignored: int


class Inbox:
    """The shared folder as looked at from outside; it changes nothing there.

    Args:
        folder: the inbox.
        work: the work folder; it must stay on the inbox's file system.
        suffixes: endings of handled files, lower case, with the dot.
        ignore: patterns of names that are left alone, compared without regard to case.
    """

    def __init__(
        self, folder: str, work: str, suffixes: Sequence[str], ignore: Sequence[str]
    ) -> None:
        self.folder = folder
        self._work = work
        self.use(suffixes, ignore)

    def use(self, suffixes: Sequence[str], ignore: Sequence[str]) -> None:
        """Look for other files from now on."""
        self._suffixes = tuple(suffixes)
        self._ignore = tuple(pattern.lower() for pattern in ignore)

    def look(self) -> Look:
        """List the inbox, all folders below it.

        Raises:
            Unavailable: it is missing, another device lies under it, or it cannot be read.
        """
        self._check_mounted()
        try:
            return self._listed()
        except OSError as error:
            raise Unavailable(
                "inbox", f"The inbox {self.folder} cannot be read ({_reason(error)})."
            ) from error

    def _check_mounted(self) -> None:
        """An empty mount point is not an empty inbox."""
        try:
            same_device = os.stat(self.folder).st_dev == os.stat(self._work).st_dev
        except OSError as error:
            raise Unavailable(
                "inbox",
                f"The inbox {self.folder} or its work folder {self._work} is not there "
                f"({_reason(error)}). Is the share mounted?",
            ) from error
        if not same_device:
            raise Unavailable(
                "inbox",
                f"Another file system lies under the inbox {self.folder} than under its work "
                f"folder {self._work}. Is the share mounted, or something else in its place?",
            )

    def _listed(self) -> Look:
        files: list[SeenFile] = []
        ignored = 0
        for path, status in self._entries(""):
            if status is not None and self._is_handled(path):
                files.append(_seen(path, status))
            else:
                ignored += 1
        return Look(tuple(files), ignored)

    def _entries(self, folder: str) -> Iterator[tuple[str, os.stat_result | None]]:
        """Every entry that is not a folder, with its status if it is a regular file."""
        for entry in self._scan(folder):
            path = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    yield from self._entries(path + "/")
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield path, status if stat.S_ISREG(status.st_mode) else None

    def _scan(self, folder: str) -> list[os.DirEntry[str]]:
        """The entries of one folder; nothing for one that vanished or may not be read."""
        try:
            with os.scandir(os.path.join(self.folder, folder)) as entries:
                return list(entries)
        except OSError as error:
            if folder and error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
                return []
            raise

    def _is_handled(self, path: str) -> bool:
        name = path.rpartition("/")[2].lower()
        return name.endswith(self._suffixes) and not any(
            fnmatchcase(name, pattern) for pattern in self._ignore
        )


class Wakeup:
    """Calls back when something happens in a folder of a local file system.

    It may miss anything; whoever relies on it looks at the folder now and then as well.

    Args:
        folder: the inbox.
        wake: called from another thread.
    """

    def __init__(self, folder: str, wake: Callable[[], None]) -> None:
        self._folder = folder
        self._handler = _Waker(wake)
        self._observer: BaseObserver | None = None

    def keep_alive(self) -> None:
        """Start watching, or start anew when the emitter has died (its thread says nothing)."""
        if self._observer is not None and all(e.is_alive() for e in self._observer.emitters):
            return
        self.close()
        observer = Observer()
        try:
            observer.schedule(self._handler, self._folder, recursive=True)
            observer.start()
        except OSError:
            return  # out of watches, or the folder is gone: the scan goes on without
        self._observer = observer

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None


class NoWakeup:
    """For file systems without events: the scan is all there is."""

    def keep_alive(self) -> None:
        """Nothing to keep alive."""

    def close(self) -> None:
        """Nothing to stop."""


def file_system_type(path: str) -> str:
    """Type of the file system that a path lies on, as `ext4` or `cifs`; empty if unknown."""
    real, best, kind = os.path.realpath(path), "", ""
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            fields = line.split()
            point = fields[4].encode("latin-1", "ignore").decode("unicode_escape")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, fields[fields.index("-") + 1]
    return kind


def is_network(path: str) -> bool:
    """Whether other hosts may write there without an event on this one."""
    return file_system_type(path).startswith(NETWORK_FILE_SYSTEMS)


def wakeup_for(
    folder: str, watch: Literal["auto", "events", "poll"], wake: Callable[[], None]
) -> Wakeup | NoWakeup:
    """The wake-up for a folder: events on local file systems, none on shares or when told."""
    if watch == "poll" or (watch == "auto" and is_network(folder)):
        return NoWakeup()
    return Wakeup(folder, wake)


class _Waker(FileSystemEventHandler):
    """Passes on that something changed; reading a file is no change."""

    _CHANGES = frozenset({"created", "modified", "moved", "closed", "deleted"})

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake on every change."""
        if event.event_type in self._CHANGES:
            self._wake()


def _seen(path: str, status: os.stat_result) -> SeenFile:
    return SeenFile(path, status.st_size, status.st_mtime_ns, status.st_ino)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)
