"""Looks at the inbox: the scan is the truth, file-system events only make it come sooner.

Every watcher library that was measured loses files silently (RELIABILITY.md, 0.1); a scan
of 10,000 files costs 44 ms. So watchdog is used on local file systems alone, to wake the
daemon, and its observer is made anew when its emitter has died.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Literal

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from xray_watcher.config.settings import Settings
from xray_watcher.core.values import SeenFile
from xray_watcher.errors import Unavailable
from xray_watcher.intake.nofollow import check_device
from xray_watcher.intake.refusals import kernel_reason
from xray_watcher.system.mounts import is_network

_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR})
_NOT_OURS = frozenset({errno.ELOOP, errno.ENAMETOOLONG})  # links, and paths that no call takes

# Watchdog walks by `os.walk`, which nests calls before Python 3.12, also in a thread that all
# observers share and that would die of it. Each level has two bytes of a path at least.
_NESTED_CALLS = 3000


@dataclass(frozen=True, slots=True)
class Scan:
    """What one look at the inbox found.

    Attributes:
        files: regular files of handled types, at any depth.
        ignored: number of entries that are left alone: hidden, temporary, other types,
            links, devices, pipes, and what has too long a path.
        is_network: whether the inbox lies on a share, on which other hosts write.
        barred: folders and files that may not be read, with the kernel's reason.
    """

    files: tuple[SeenFile, ...]
    ignored: int
    is_network: bool
    barred: Mapping[str, str]


class Inbox:
    """The shared folder as looked at from outside; it changes nothing there.

    Args:
        folder: the inbox.
        work: the work folder; it must stay on the inbox's file system.
        suffixes: endings of handled files, lower case, with the dot.
        ignore: patterns of names of files and folders that are left alone, compared without
            regard to case.
    """

    def __init__(
        self, folder: str, work: str, suffixes: Sequence[str], ignore: Sequence[str]
    ) -> None:
        self.folder = folder
        self._work = work
        self._suffixes = tuple(suffixes)
        self._ignores = _matcher(ignore)
        self._device: int | None = None
        self._is_network = False

    def look(self) -> Scan:
        """List the inbox, all folders below it.

        Raises:
            Unavailable: it is missing, another device lies under it, or it cannot be read.
        """
        *_, look = self.begin_scan()
        assert look is not None
        return look

    def begin_scan(self) -> Iterator[Scan | None]:
        """List the inbox piece by piece: None after each entry, and at the end what was found.

        Raises:
            Unavailable: it is missing, another device lies under it, or it cannot be read.
        """
        self._note_device(check_device(self.folder, self._work))
        scan = _Walk(self.folder, self._ignores)
        files: list[SeenFile] = []
        ignored = 0
        try:
            for path, status in scan.entries():
                if status is not None and self._is_handled(path):
                    files.append(_seen(path, status, is_network=self._is_network))
                else:
                    ignored += 1
                yield None
        except OSError as error:
            raise Unavailable(
                "inbox", f"The inbox {self.folder} cannot be read ({kernel_reason(error)})."
            ) from error
        if scan.barred:  # perhaps the whole share went away meanwhile
            self._note_device(check_device(self.folder, self._work))
        yield Scan(tuple(files), ignored, self._is_network, scan.barred)

    def _note_device(self, device: int) -> None:
        if device != self._device:  # a share may have been mounted since
            self._device, self._is_network = device, is_network(self.folder)

    def _is_handled(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        return name.lower().endswith(self._suffixes) and not self._ignores(name)


class _Walk:
    """One walk through the inbox.

    Attributes:
        barred: what could not be read, with the reason.
    """

    def __init__(self, folder: str, ignores: Callable[[str], bool]) -> None:
        self._folder = folder
        self._ignores = ignores
        self.barred: dict[str, str] = {}

    def entries(self) -> Iterator[tuple[str, os.stat_result | None]]:
        """Every entry that is not a folder, with its status if it is a regular file.

        Senders may nest folders deeper than Python nests calls: hence a list of what is still to
        be looked at, the next one last.

        Raises:
            OSError: the inbox itself cannot be listed; what lies below costs itself alone.
        """
        top = os.path.join(self._folder, ".")  # for which it must be entered, not only listed
        below = len(top) + 1
        to_do = _listed(top)
        while to_do:
            entry = to_do.pop()
            path = entry.path[below:]
            try:
                if not entry.is_dir(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield path, status if stat.S_ISREG(status.st_mode) else None
                elif not entry.name.startswith(".") and not self._ignores(entry.name):
                    to_do += _listed(entry.path)
            except OSError as error:
                if error.errno in _NOT_OURS:
                    yield path, None
                elif error.errno not in _VANISHED:
                    self.barred[path] = kernel_reason(error)


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Decides whether a name is left alone, in one comparison."""
    whole = "|".join(translate(pattern.lower()) for pattern in patterns)
    found = re.compile(whole).match if patterns else lambda _name: None
    return lambda name: found(name.lower()) is not None


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
        self._watched: os.stat_result | None = None
        sys.setrecursionlimit(max(sys.getrecursionlimit(), _NESTED_CALLS))

    def keep_alive(self) -> None:
        """Start watching, or start anew when the emitter has died (its thread says nothing).

        It says nothing either when the folder was moved away: it follows the old one.
        """
        if self._is_watching():
            return
        self.close()
        observer = Observer()
        try:
            self._watched = os.stat(self._folder)
            observer.schedule(self._handler, self._folder, recursive=True)
            observer.start()
        except (OSError, RecursionError):
            return  # out of watches, the folder is gone, or too deep: the scan goes on without
        self._observer = observer

    def _is_watching(self) -> bool:
        if self._observer is None or self._watched is None:
            return False
        try:
            is_same = os.path.samestat(os.stat(self._folder), self._watched)
        except OSError:
            return False
        return is_same and all(emitter.is_alive() for emitter in self._observer.emitters)

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


def build_inbox(settings: Settings, work: str) -> Inbox:
    """The inbox as the settings have it, for looking only."""
    intake = settings.intake
    return Inbox(settings.folders.inbox, work, intake.suffixes, intake.ignore)


def build_wakeup(
    folder: str, watch: Literal["auto", "events", "poll"], wake: Callable[[], None]
) -> Wakeup | NoWakeup:
    """The wake-up for a folder: events on local file systems, none on shares."""
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


def _listed(folder: str) -> list[os.DirEntry[str]]:
    """The entries of one folder, from the last to the first."""
    with os.scandir(folder) as entries:
        return list(entries)[::-1]


def _seen(path: str, status: os.stat_result, *, is_network: bool) -> SeenFile:
    inode = 0 if is_network else status.st_ino  # on a share it may be another at each look
    return SeenFile(path, status.st_size, status.st_mtime_ns, inode)
