"""Removes files of ours that are surely what the ledger says: the only place that does so."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Literal

from xray_watcher.errors import Unavailable, XrayWatcherError
from xray_watcher.system.files import OPEN_FILE, compute_sha256, directory

Removal = Literal["removed", "gone", "changed"]
_IsOurs = Callable[[int], bool]


class NotRemoved(XrayWatcherError):
    """One file cannot be removed, the others of its folder can; the message is the reason."""


def remove_image(path: str, size: int, sha256: bytes | None) -> Removal:
    """Remove a filed image if it is a regular file with exactly these bytes.

    Args:
        path: of the file.
        size: bytes that it has.
        sha256: of its bytes; None of a file that was rejected unread: then the size must do.

    Returns:
        "gone" when there is no such file, "changed" when something else lies there: it stays.

    Raises:
        NotRemoved: it is immutable, on a bad sector, or another's in a sticky folder.
        Unavailable: its folder is out of reach or may not be written.
    """

    def is_ours(fd: int) -> bool:
        return os.fstat(fd).st_size == size and (sha256 is None or compute_sha256(fd) == sha256)

    return _remove(path, is_ours)


def remove_reason(path: str, content: bytes) -> Removal:
    """Remove the file beside a rejected image if it holds exactly what was written there.

    Raises:
        Unavailable: as above.
    """

    def is_ours(fd: int) -> bool:
        return os.fstat(fd).st_size == len(content) and os.pread(fd, len(content), 0) == content

    return _remove(path, is_ours)


def _remove(path: str, is_ours: _IsOurs) -> Removal:
    folder, name = os.path.split(path)
    try:
        with directory(folder) as parent:
            return _remove_in(parent, name, is_ours)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        if os.access(folder, os.W_OK | os.X_OK):
            raise NotRemoved(why) from error
        raise Unavailable("retention", f"Nothing can be removed from {folder} ({why}).") from error


def _remove_in(parent: int, name: str, is_ours: _IsOurs) -> Removal:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return "gone"
    if not stat.S_ISREG(found.st_mode):
        return "changed"
    fd = os.open(name, OPEN_FILE, dir_fd=parent)
    try:
        if not is_ours(fd):
            return "changed"
        now = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not os.path.samestat(now, os.fstat(fd)):
            return "changed"  # put in its place while it was read
        os.unlink(name, dir_fd=parent)
    finally:
        os.close(fd)
    return "removed"
