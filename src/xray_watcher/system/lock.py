"""One daemon for each ledger and each inbox: locks that the kernel frees on any end."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from xray_watcher.errors import AlreadyRunning, Unavailable
from xray_watcher.system.advice import refusal
from xray_watcher.system.files import give_like, read_facts, write_whole

OWNER_NOTE = "owner.json"
"""In the work folder: which ledger on which host the inbox belongs to."""

_TRIES = 40
_PAUSE_S = 0.05  # `status` holds it for a moment to see; a daemon that is killed, until it is gone
_BUSY = (errno.EAGAIN, errno.EACCES)


class InstanceLock:
    """Held by whoever writes the ledger: an flock on a file beside it.

    Args:
        path: the lock file; it says who holds it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            AlreadyRunning: another process holds it; the message says which.
            Unavailable: the lock file cannot be made or written.
        """
        try:
            self._fd = _opened(self._path)
            self._lock(self._fd)
        except BaseException as error:
            self.__exit__()
            if isinstance(error, OSError):
                what = f"The lock file {self._path} cannot be written"
                raise Unavailable("ledger", refusal(what, error)) from error
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        """Free the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock(self, fd: int) -> None:
        if not _locked(fd):
            raise AlreadyRunning(
                f"Another xray-watcher holds {self._path}: {_describe(read_holder(self._path))}. "
                "Stop it first, or give this one a state_dir and an inbox of its own."
            )
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode() + b"\n", 0)


class InboxLock:
    """Held by the daemon on its inbox, so that no two take each other's files.

    On one machine an flock on the folder itself keeps others off: nothing in it can be deleted to
    get round that. Network file systems may lock no folders, so a note in the work folder says
    which ledger on which host the inbox belongs to.

    Args:
        inbox: the watched folder.
        work: the work folder, on the same file system.
        ledger_id: of the ledger that the inbox belongs to.
    """

    def __init__(self, inbox: str, work: str, ledger_id: str) -> None:
        self._inbox = inbox
        self._note = os.path.join(work, OWNER_NOTE)
        self._ledger_id = ledger_id
        self._fd: int | None = None

    def __enter__(self) -> Self:
        """Return the lock itself; `take` takes it."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Free the lock."""
        self.release()

    def release(self) -> None:
        """Free the lock: a share that has gone can only be unmounted when nobody holds it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def take(self) -> None:
        """Take the lock, unless it is held: the inbox may have been out of reach, or another.

        Raises:
            AlreadyRunning: another process watches this inbox with another ledger.
            Unavailable: the inbox cannot be opened, or the note not be written.
        """
        if self._fd is not None and _is_opened_at(self._fd, self._inbox):
            return
        self.release()
        try:
            fd = os.open(self._inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(
                "inbox",
                f"The inbox {self._inbox} cannot be opened ({os.strerror(error.errno or 0)}).",
            ) from error
        try:
            self._lock(fd)
            self._sign()
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _lock(self, fd: int) -> None:
        try:
            is_ours = _locked(fd)
        except OSError:
            is_ours = True  # this file system locks no folders: the note must do
        if not is_ours:
            raise AlreadyRunning(
                f"Another xray-watcher with another ledger watches the inbox {self._inbox}: "
                f"{_holder_in_kernel(fd)}. Stop it first; two would take each other's files."
            )

    def _sign(self) -> None:
        """Note whose inbox it is. A ledger of this host, or this ledger elsewhere, may go on."""
        noted = read_facts(self._note)
        host = socket.gethostname()
        if noted and self._ledger_id != noted.get("ledger") and host != noted.get("host"):
            raise AlreadyRunning(
                f"The inbox {self._inbox} belongs to an xray-watcher on {noted.get('host')!a}, "
                f"since {noted.get('since')!a}; two would take each other's files. If that one no "
                f"longer runs, remove {self._note} and start again."
            )
        if (noted.get("ledger"), noted.get("host")) == (self._ledger_id, host):
            return
        note = {"ledger": self._ledger_id, "host": host, "since": _now()}
        try:
            write_whole(self._note, json.dumps(note).encode() + b"\n")
        except OSError as error:
            raise Unavailable(
                "inbox",
                f"The note {self._note} cannot be written ({os.strerror(error.errno or 0)}).",
            ) from error


def _opened(path: str) -> int:
    """Open a lock file; one that root makes for a command is the service's afterwards."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_EXCL, 0o644)
    except FileExistsError:
        return os.open(path, flags, 0o644)
    give_like(fd, os.path.dirname(path))
    return fd


def _is_opened_at(fd: int, path: str) -> bool:
    """Whether what was opened is what lies there now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def is_held(path: str) -> bool:
    """Whether a daemon runs that holds this lock file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def read_holder(path: str) -> dict[str, object]:
    """Who holds the lock, as it wrote it itself: pid, host, since; empty if that is unreadable."""
    return read_facts(path)


def _locked(fd: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            time.sleep(_PAUSE_S)
        else:
            return True
    return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe(holder: dict[str, object]) -> str:
    if not holder:
        return "it does not say who it is"
    return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"


def _holder_in_kernel(fd: int) -> str:
    status = os.fstat(fd)
    ending = f":{status.st_ino}"
    with suppress(OSError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(ending):
                return f"process {fields[4]}"
    return "a process that the kernel does not name"
