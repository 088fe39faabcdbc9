"""The JSONL and CSV logs: projections of the ledger, appended from its byte watermarks.

What a file must hold is known byte by byte, so whatever is found there can be judged:
as far as the watermark and no further (go on), further but as the next lines would be (a
kill between the write and the commit: keep the whole lines, cut the torn one), or anything
else (somebody edited or deleted it: keep theirs as `.conflict-TIME`, write ours anew).
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import BinaryIO, Literal

from xray_watcher.errors import Unavailable
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import LogLine, LogState
from xray_watcher.system.files import (
    OPEN_FILE,
    names_in,
    rename_noreplace,
    sync,
    sync_folder,
    write_all,
    write_whole,
)
from xray_watcher.system.mounts import GuardedFolder

Form = Literal["jsonl", "csv"]

_FORMS: tuple[Form, ...] = ("jsonl", "csv")
_CONFLICT = ".conflict-"
_MODE = 0o640
"""Results are for the service's group, not for everybody."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A log that was not as we left it: what somebody made of it was kept under this path."""

    path: str


class LogFiles:
    """Both logs of the days that are written to.

    Args:
        folder: where the logs lie.
        ledger: what they must hold.
    """

    def __init__(self, folder: str, ledger: LedgerReader) -> None:
        self._folder = folder
        self._place = GuardedFolder(folder)
        self._ledger = ledger
        self._known: dict[str, tuple[int, int, int]] = {}  # path: size, mtime_ns, inode

    def append(
        self, lines: Sequence[LogLine], now: datetime
    ) -> tuple[list[LogState], list[Conflict]]:
        """Append the lines of decided images and make them last.

        Args:
            lines: in the order of their indexes.
            now: names the copy of a file that somebody changed.

        Returns:
            The new watermarks, to be committed, and what was found changed.

        Raises:
            Unavailable: the logs cannot be written.
            StorageFailure: the disk did not confirm.
        """
        states: list[LogState] = []
        conflicts: list[Conflict] = []
        try:
            self._place.keep()  # the ledger can make the logs anew
            for name, group in groupby(lines, key=lambda line: line.log):
                state = self._ledger.log_state(name)
                assert state is not None, "a decision begins its log"
                new = list(group)
                sizes = {form: self._append(form, state, new, now, conflicts) for form in _FORMS}
                states.append(LogState(name, state.csv_header, sizes["jsonl"], sizes["csv"]))
        except OSError as error:
            raise Unavailable(
                "logs",
                f"The logs in {self._folder} cannot be written ({os.strerror(error.errno or 0)}).",
            ) from error
        return states, conflicts

    def differing(self, state: LogState) -> list[Form]:
        """Which of both files of a log do not hold what they must, and nothing else.

        The service may go on writing: what it has committed since `state` was read is not judged.

        Raises:
            OSError: a file cannot be read.
        """
        return [form for form in _FORMS if not self._is_sound(form, state)]

    def repair(self, state: LogState, now: datetime) -> list[Conflict]:
        """Write those files of a log anew that differ; what was there is kept beside.

        Raises:
            OSError: a file cannot be written.
        """
        conflicts = []
        for form in self.differing(state):
            path = self._path(form, state)
            if os.path.lexists(path):
                conflicts.append(_set_aside(path, now))
            self._rebuild(path, form, state)
        return conflicts

    def remove(self, state: LogState) -> bool:
        """Delete both files of a log, if they hold what they must and nothing else.

        Files that are gone already are no hindrance: a kill may have come between the two.

        Returns:
            False when somebody has changed one of them; then both stay.

        Raises:
            OSError: one cannot be read or removed.
        """
        there = [form for form in _FORMS if os.path.lexists(self._path(form, state))]
        if not all(self._is_exactly_ours(form, state) for form in there):
            return False
        for form in there:
            path = self._path(form, state)
            os.unlink(path)
            self._known.pop(path, None)
        sync_folder(self._folder)
        return True

    def _is_exactly_ours(self, form: Form, state: LogState) -> bool:
        fd = os.open(self._path(form, state), OPEN_FILE)
        with open(fd, "rb") as log:
            return self._holds(log, form, state) and not log.read(1)

    def _is_sound(self, form: Form, state: LogState) -> bool:
        try:
            with open(self._path(form, state), "rb") as log:
                is_held = self._holds(log, form, state)
                behind = log.read(1)
        except FileNotFoundError:
            return _watermark(form, state) == 0
        return is_held and (not behind or self._is_being_written(state))

    def _is_being_written(self, state: LogState) -> bool:
        """Whether lines may stand behind the watermark: before their commit, or since that."""
        return bool(self._ledger.open_rows()) or self._ledger.log_state(state.name) != state

    def _path(self, form: Form, state: LogState) -> str:
        return os.path.join(self._folder, f"{state.name}.{form}")

    def _append(
        self,
        form: Form,
        state: LogState,
        lines: Sequence[LogLine],
        now: datetime,
        conflicts: list[Conflict],
    ) -> int:
        """Append to one file; returns its size in bytes."""
        path = self._path(form, state)
        watermark = _watermark(form, state)
        if not self._is_as_left(path, form, state, watermark, lines):
            if os.path.lexists(path):
                conflicts.append(_set_aside(path, now))
            watermark = self._rebuild(path, form, state)
        head = state.csv_header if form == "csv" and watermark == 0 else b""
        content = head + b"".join(getattr(line, form) for line in lines)
        return self._write(path, watermark, content)

    def _is_as_left(
        self, path: str, form: Form, state: LogState, watermark: int, lines: Sequence[LogLine]
    ) -> bool:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return watermark == 0
        if self._known.get(path) == _identity(status):
            return True
        head = state.csv_header if form == "csv" and watermark == 0 else b""
        ours = head + b"".join(getattr(line, form) for line in lines)
        with open(path, "rb") as log:
            return self._holds(log, form, state) and _is_torn_from(log.read(len(ours)), ours)

    def _holds(self, log: BinaryIO, form: Form, state: LogState) -> bool:
        """Whether a file begins with what it must hold; read piece by piece, it may be large."""
        left = _watermark(form, state)
        for piece in self._expected(form, state):
            if left == 0:  # the rest was committed since `state` was read
                break
            if log.read(len(piece)) != piece:
                return False
            left -= len(piece)
        return left == 0

    def _expected(self, form: Form, state: LogState) -> Iterator[bytes]:
        """What the file holds up to its watermark or the ledger's newest one, piece by piece."""
        if _watermark(form, state) == 0:
            return
        if form == "csv":
            yield state.csv_header
        for line in self._ledger.log_lines(state.name):
            yield getattr(line, form)

    def _rebuild(self, path: str, form: Form, state: LogState) -> int:
        """Write the file anew from the ledger up to its watermark; returns its size."""
        content = b"".join(self._expected(form, state))
        write_whole(path, content, _MODE)
        return len(content)

    def _write(self, path: str, offset: int, content: bytes) -> int:
        is_new = not os.path.lexists(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            os.ftruncate(fd, offset)  # what a kill left behind the watermark is written again
            _write_or_leave(fd, content, offset)
            sync(fd)
            self._known[path] = _identity(os.fstat(fd))
        finally:
            os.close(fd)
        if is_new:
            sync_folder(self._folder)
        return offset + len(content)


def _write_or_leave(fd: int, content: bytes, offset: int) -> None:
    """Write all of it or nothing: who reads the log of a full disk sees whole lines."""
    try:
        write_all(fd, content, offset)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, offset)
        raise


def _watermark(form: Form, state: LogState) -> int:
    return state.jsonl_bytes if form == "jsonl" else state.csv_bytes


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _is_torn_from(tail: bytes, ours: bytes) -> bool:
    """Whether what lies behind the watermark is the beginning of what a killed run wrote.

    A run may have written more images than the ones that are appended now, so only the
    common length counts; zero bytes are what a power cut leaves of an unflushed write.
    """
    written = tail[: len(ours)].rstrip(b"\0")
    return ours.startswith(written)


def edited_copies(folder: str) -> list[str]:
    """Paths of the edited logs that were kept, oldest first; nothing removes them.

    Raises:
        OSError: the folder cannot be listed.
    """
    names = (name for name in names_in(folder) if _CONFLICT in name)
    kept = sorted((name.partition(_CONFLICT)[2], name) for name in names)
    return [os.path.join(folder, name) for _, name in kept]


def _set_aside(path: str, now: datetime) -> Conflict:
    """Keep what somebody made of a log; of two copies with the same bytes the older one."""
    before = [each for each in edited_copies(os.path.dirname(path)) if _is_copy_of(each, path)]
    kept = f"{path}{_CONFLICT}{now:%Y%m%dT%H%M%S.%fZ}"
    rename_noreplace(path, kept)
    with suppress(OSError):  # what cannot be compared is kept
        for older in before:
            if filecmp.cmp(older, kept, shallow=False):
                os.unlink(kept)
                return Conflict(older)
    return Conflict(kept)


def _is_copy_of(kept: str, path: str) -> bool:
    return kept.startswith(f"{path}{_CONFLICT}")
