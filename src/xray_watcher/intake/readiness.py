"""Whether a settled file may be claimed: unchanged, nobody writes it, and it looks whole."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Literal

from xray_watcher.core.values import SeenFile
from xray_watcher.intake.images import TAIL_BYTES, completeness

Readiness = Literal["ready", "gone", "changed", "busy", "unfinished", "barred"]
"""Whether a settled file may be claimed now, and why not."""

_HEAD_BYTES = 16


def readiness_of(fd: int, file: SeenFile, *, overdue: bool) -> Readiness:
    """Whether an opened file may be claimed.

    Args:
        fd: the file, open for reading.
        file: as it was last seen.
        overdue: take it even if it does not look whole.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return "gone"
    if (status.st_size, status.st_mtime_ns, status.st_ino) != (
        file.size,
        file.mtime_ns,
        file.inode,
    ):
        return "changed"
    if _is_open_for_writing(fd):
        return "busy"
    if not overdue and _looks_unfinished(fd, status.st_size):
        return "unfinished"
    return "ready"


def _is_open_for_writing(fd: int) -> bool:
    """Whether a process of this machine has the file open for writing.

    A read lease is only given where nobody writes. It is refused otherwise to users who
    do not own the file, and is blind on network file systems: then the settle time decides.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _looks_unfinished(fd: int, size: int) -> bool:
    head = os.pread(fd, _HEAD_BYTES, 0)
    tail = os.pread(fd, TAIL_BYTES, max(0, size - TAIL_BYTES))
    return completeness(head, tail) == "unfinished"
