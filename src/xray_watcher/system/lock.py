"""One daemon for each ledger and each inbox: locks that the kernel frees on any end.

Whoever can open a file can lock it, to read is enough. So the locked files are the service's alone
(mode 0600), and who holds one is asked of the kernel, not of a note.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import socket
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from xray_watcher.errors import AlreadyRunning, Unavailable
from xray_watcher.system.advice import refusal
from xray_watcher.system.files import OPEN_FILE, read_facts, write_whole
from xray_watcher.system.mounts import mount_of

OWNER_NOTE = "owner.json"
"""In the work folder: which ledger on which host the inbox belongs to."""

LOCK = "lock"
"""In the work folder: the file that the daemon of its inbox locks."""

_MODE = 0o600
_TRIES = 40
_PAUSE_S = 0.05  # `status` holds it for a moment to see; a daemon that is killed, until it is gone
_BUSY = (errno.EAGAIN, errno.EACCES)


class InstanceLock:
    """Held by whoever writes the ledger: an flock on a file beside it.

    Args:
        path: the lock file. A note beside it says to those who may not open it who holds it.
        kept: descriptor of the lock as an earlier process of this service has taken it, which is
            gone on with if it is that of this file; None if there is none.
    """

    def __init__(self, path: str, kept: int | None = None) -> None:
        self._path = path
        self._fd: int | None = None
        self._kept = kept

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            AlreadyRunning: another process holds it; the message says which.
            Unavailable: the lock file cannot be made or written.
        """
        try:
            is_ours = self._kept is not None and _is_opened_at(self._kept, self._path)
            self._fd = self._kept if is_ours else _open(self._path)
            assert self._fd is not None
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

    def fileno(self) -> int:
        """The descriptor that holds the lock; only while it is held."""
        assert self._fd is not None
        return self._fd

    def _lock(self, fd: int) -> None:
        if not _locked(fd):
            raise AlreadyRunning(
                f"Another xray-watcher holds {self._path}: {_holder_of(fd, self._path)}. "
                "Stop it first, or give this one a state_dir and an inbox of its own."
            )
        os.fchmod(fd, _MODE)  # an older version made it for all to read
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        with suppress(OSError):  # the lock is held without it, and the ledger tells of a full disk
            write_whole(_note_of(self._path), json.dumps(holder).encode() + b"\n")


class InboxLock:
    """Held by the daemon on its inbox, so that no two take each other's files.

    On one machine an flock on a file in the work folder keeps others off. Network file systems may
    lock nothing, so a note beside it says which ledger on which host the inbox belongs to. The
    inbox itself is locked too, for versions that look there alone and for an inbox with two work
    folders; anybody may lock that, so what others hold there counts for nothing.

    Args:
        inbox: the watched folder.
        work: the work folder, on the same file system.
        ledger_id: of the ledger that the inbox belongs to.
    """

    def __init__(self, inbox: str, work: str, ledger_id: str) -> None:
        self._inbox = inbox
        self._file = os.path.join(work, LOCK)
        self._note = os.path.join(work, OWNER_NOTE)
        self._ledger_id = ledger_id
        self._fds: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        """Return the lock itself; `take` takes it."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Free the lock."""
        self.release()

    def release(self) -> None:
        """Free the lock: a share that has gone can only be unmounted when nobody holds it."""
        for fd in self._fds:
            os.close(fd)
        self._fds = ()

    def take(self) -> None:
        """Take the lock, unless it is held: the inbox may have been out of reach, or another.

        Raises:
            AlreadyRunning: another process watches this inbox with another ledger.
            Unavailable: the inbox cannot be opened, or lock or note not be written.
        """
        places = (self._inbox, self._file)
        if self._fds and all(map(_is_opened_at, self._fds, places)):
            return
        self.release()
        try:
            inbox = os.open(self._inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unavailable(f"The inbox {self._inbox} cannot be opened", error) from error
        self._fds = (inbox,)
        try:
            self._fds = (inbox, _open(self._file))
            self._lock()
            self._sign()
        except OSError as error:
            self.release()
            raise _unavailable(f"The lock {self._file} cannot be made", error) from error
        except BaseException:
            self.release()
            raise

    def _lock(self) -> None:
        """See that nobody holds it; a file system that locks nothing leaves it to the note."""
        inbox, file = self._fds
        holder = "" if _locked_where_possible(file) else _whoever_counts(file, self._file)
        if not holder and not _locked_where_possible(inbox):
            ours = _of_this_user(_holders(self._inbox))
            holder = _described(ours[0]) if ours else ""
        if holder:
            raise AlreadyRunning(
                f"Another xray-watcher with another ledger watches the inbox {self._inbox}: "
                f"{holder}. Stop it first; two would take each other's files."
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
            raise _unavailable(f"The note {self._note} cannot be written", error) from error


def is_held(path: str) -> bool:
    """Whether a daemon runs that holds this lock file; who may not open it asks the kernel."""
    try:
        fd = os.open(path, OPEN_FILE)
    except PermissionError:
        return bool(_holders(path))
    except OSError:
        return False
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def read_holder(path: str) -> dict[str, object]:
    """Who holds the lock, as it noted itself: pid, host, since; empty if that is unreadable."""
    return read_facts(_note_of(path))


def _open(path: str) -> int:
    """Open a lock file of ours; a link or pipe that lies there is not gone through.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, _MODE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileExistsError(errno.EEXIST, f"{path} is no file")
    return fd


def _is_opened_at(fd: int, path: str) -> bool:
    """Whether what was opened is what lies there now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _locked_where_possible(fd: int) -> bool:
    try:
        return _locked(fd)
    except OSError:
        return True


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


# -- who holds it -------------------------------------------------------------------------


def _holders(path: str) -> list[int]:
    """The processes that hold an flock on a file or folder, as far as the kernel shows them."""
    try:
        status = os.stat(path, follow_symlinks=False)
        with open("/proc/locks", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    # Btrfs gives its files other device numbers than the kernel counts with.
    numbers = {f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}", mount_of(path).device}
    devices = {tuple(map(int, number.split(":"))) for number in numbers if number}
    found = []
    for fields in lines:  # as "7: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF"; "->" waits
        if len(fields) > 5 and fields[1] == "FLOCK":
            major, minor, inode = fields[5].split(":")
            if int(inode) == status.st_ino and (int(major, 16), int(minor, 16)) in devices:
                found.append(int(fields[4]))
    return found


def _holder_of(fd: int, path: str) -> str:
    """Who holds a lock: the kernel knows, and only of a process that it does not show the note."""
    pids = _holders(path) if _is_opened_at(fd, path) else []
    pids = [pid for pid in pids if _user_of(pid) is not None]  # a reload has left an older one's
    noted = read_holder(path)
    if not pids:
        return f"a process that the kernel does not show; {_noted(noted)}"
    since = f", since {noted.get('since')}" if noted.get("pid") == pids[0] else ""
    return _described(pids[0]) + since


def _whoever_counts(fd: int, path: str) -> str:
    """Who holds a lock of ours; nobody if others can open the file and only they hold it."""
    status, pids = os.fstat(fd), _holders(path)
    is_private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    if pids and not is_private and not _of_this_user(pids):
        return ""
    return _holder_of(fd, path)


def _of_this_user(pids: list[int]) -> list[int]:
    return [pid for pid in pids if _user_of(pid) == os.geteuid()]


def _described(pid: int) -> str:
    uid = _user_of(pid)
    if uid in (None, os.geteuid()):
        return f"process {pid}"
    try:
        name = pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        name = str(uid)
    return f"process {pid} of the user {name}"


def _noted(holder: dict[str, object]) -> str:
    if not holder:
        return "it does not say who it is"
    told = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
    return f"the last that noted itself is {told}"


def _user_of(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def _note_of(path: str) -> str:
    return f"{path}.json"


def _unavailable(what: str, error: OSError) -> Unavailable:
    return Unavailable("inbox", f"{what} ({os.strerror(error.errno or 0)}).")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
