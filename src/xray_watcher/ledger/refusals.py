"""What SQLite's errors mean for the service: wait, stop, or ask for a person."""

from __future__ import annotations

import errno
import os
import sqlite3

from xray_watcher.errors import (
    LedgerError,
    LedgerOutOfReach,
    StorageFailure,
    Unavailable,
    XrayWatcherError,
)
from xray_watcher.system.advice import refusal

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_NOT_WRITABLE = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN})
_NO_ROOM = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,  # EDQUOT among them: SQLite knows only ENOSPC
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)
"""A write that was refused and rolled back; one that was not confirmed is not among them."""

_AWAY = _HELD | _NOT_WRITABLE | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}

_ENOSPC = OSError(errno.ENOSPC, "")


def refused(path: str, error: sqlite3.Error) -> XrayWatcherError:
    """Our error for SQLite's: `Unavailable` is waited for, `StorageFailure` ends the service.

    Args:
        path: of the ledger.
        error: what SQLite says.
    """
    code = _code(error)
    if code & 0xFF in _DAMAGED:
        return LedgerError(
            f"The ledger {path} is damaged ({error}). Restore it from a backup, or move it away "
            "together with the output folders to begin anew."
        )
    if code & 0xFF in _HELD:
        return Unavailable(
            "ledger",
            f"Another program holds the ledger {path} ({error}). Nothing is lost; `fuser {path}` "
            "names it.",
        )
    if code in _NO_ROOM:
        what = f"The ledger {path} takes no more"
        is_full = code & 0xFF == sqlite3.SQLITE_FULL
        return Unavailable("disk", refusal(what, _ENOSPC if is_full else _no_room(path)))
    if code & 0xFF in _NOT_WRITABLE:
        return Unavailable("ledger", refusal(f"The ledger {path} cannot be written", _barred(path)))
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        return StorageFailure(
            f"The ledger {path} cannot be read or written ({error}). The service stops; what is "
            "open is taken up at the next start. Check the disk of the state_dir (`dmesg`)."
        )
    return _unusable(path, error)


def unreadable(path: str, error: sqlite3.Error) -> LedgerError:
    """Our error for SQLite's where the ledger is only read, by a command or for a page.

    Args:
        path: of the ledger.
        error: what SQLite says.
    """
    code = _code(error) & 0xFF
    if code in _DAMAGED:
        return LedgerError(f"The ledger {path} cannot be read: {error}. Restore it from a backup.")
    return out_of_reach(path, error) if code in _AWAY else _unusable(path, error)


def out_of_reach(path: str, error: sqlite3.Error) -> LedgerOutOfReach:
    """The error of a ledger that can perhaps be read again later."""
    return LedgerOutOfReach(
        f"The ledger {path} cannot be read now ({error}). Its disk may be full or fail, or another "
        "program holds it: `xray-watcher status` and `df` say more."
    )


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR


def _unusable(path: str, error: sqlite3.Error) -> LedgerError:
    return LedgerError(f"The ledger {path} cannot be used ({error}).")


def _no_room(path: str) -> OSError:
    """Whether the disk is full or a quota used up: SQLite does not say."""
    try:
        free = os.statvfs(os.path.dirname(path) or os.curdir).f_bavail
    except OSError as error:
        return error
    return OSError(errno.EDQUOT if free else errno.ENOSPC, "")


def check_writable(path: str) -> None:
    """See that the ledger, if there is one, may be written.

    Raises:
        LedgerError: it belongs to another user.
        Unavailable: its file system is read-only.
    """
    if not os.path.exists(path) or os.access(path, os.R_OK | os.W_OK):
        return
    if (error := _barred(path)).errno == errno.EROFS:
        raise Unavailable("ledger", refusal(f"The ledger {path} cannot be written", error))
    raise LedgerError(
        f"The ledger {path} is not this user's to write: give it to the user and the group of the "
        "service (chown)."
    )


def _barred(path: str) -> OSError:
    """Why a file cannot be written. It is not opened: to close it would free SQLite's locks."""
    is_read_only = os.statvfs(os.path.dirname(path) or os.curdir).f_flag & os.ST_RDONLY
    return OSError(errno.EROFS if is_read_only else errno.EACCES, "")
