"""One daemon for each ledger and each inbox: locks that the kernel frees on any end."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from typing import Self

from xray_watcher.errors import AlreadyRunning, Unavailable
from xray_watcher.files import read_facts

_TRIES = 40
_PAUSE_S = 0.05  # `status` holds it for a moment to see; a daemon that is killed, until it is gone
_BUSY = (errno.EAGAIN, errno.EACCES)


class InstanceLock:
    """Held by the running daemon: an flock on a file beside the ledger, one on the inbox.

    Args:
        path: the lock file; it says who holds it.
        inbox: the folder that no second daemon may watch; locked itself, so that nothing
            in it can be deleted to get round the lock.
    """

    def __init__(self, path: str, inbox: str) -> None:
        self._path = path
        self._inbox = inbox
        self._fds: list[int] = []
        self._has_inbox = False

    def __enter__(self) -> Self:
        """Take the ledger's lock.

        Raises:
            AlreadyRunning: another process holds it; the message says which.
        """
        try:
            self._lock_ledger()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        """Free both locks."""
        while self._fds:
            os.close(self._fds.pop())
        self._has_inbox = False

    def _lock_ledger(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._fds.append(fd)
        if not _locked(fd):
            raise AlreadyRunning(
                f"Another xray-watcher holds {self._path}: {_describe(read_holder(self._path))}. "
                "Stop it first, or give this one a state_dir and an inbox of its own."
            )
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode() + b"\n", 0)

    def lock_inbox(self) -> None:
        """Take the inbox's lock too, unless that was done: it may be out of reach at the start.

        Raises:
            AlreadyRunning: another process watches this inbox with another ledger.
            Unavailable: the inbox cannot be opened.
        """
        if self._has_inbox:
            return
        try:
            fd = os.open(self._inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(
                "inbox",
                f"The inbox {self._inbox} cannot be opened ({os.strerror(error.errno or 0)}).",
            ) from error
        self._fds.append(fd)
        try:
            is_ours = _locked(fd)
        except OSError:
            is_ours = True  # some network file systems lock no folders; the ledger's lock holds
        if not is_ours:
            raise AlreadyRunning(
                f"Another xray-watcher with another ledger watches the inbox {self._inbox}: "
                f"{_holder_in_kernel(fd)}. Stop it first; two would take each other's files."
            )
        self._has_inbox = True


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


def _describe(holder: dict[str, object]) -> str:
    if not holder:
        return "it does not say who it is"
    return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"


def _holder_in_kernel(fd: int) -> str:
    status = os.fstat(fd)
    ending = f":{status.st_ino}"
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(ending):
                return f"process {fields[4]}"
    return "a process that the kernel does not name"
