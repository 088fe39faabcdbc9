"""Whether a settled file may be claimed: unchanged, nobody writes it, and it looks whole."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import Literal

from xray_watcher.core.values import LARGEST_FILE_BYTES, SeenFile
from xray_watcher.imaging.formats import HEAD_BYTES, TAIL_BYTES, completeness

Readiness = Literal["ready", "gone", "changed", "busy", "unfinished"]
"""Whether a settled file may be claimed now, and why not."""


def check_readiness(
    fd: int, file: SeenFile, *, overdue: bool, is_network: bool = False
) -> Readiness:
    """Whether an opened file may be claimed.

    Args:
        fd: the file, open for reading.
        file: as it was last seen.
        overdue: take it even if it does not look whole.
        is_network: it lies on a share. A lease says nothing there: without an oplock or a
            delegation the kernel refuses it though nobody writes.

    Raises:
        OSError: the file cannot be read.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return "gone"
    inode = status.st_ino if file.inode else 0
    if (status.st_size, status.st_mtime_ns, inode) != (file.size, file.mtime_ns, file.inode):
        return "changed"
    if not is_network and _is_open_for_writing(fd):
        return "busy"
    if status.st_size > LARGEST_FILE_BYTES:
        return "ready"  # whatever it becomes, it is too large
    if not overdue and _looks_unfinished(fd, status.st_size):
        return "unfinished"
    return "ready"


def _is_open_for_writing(fd: int) -> bool:
    """Whether a process of this machine has the file open for writing.

    A read lease is only given where nobody writes. It is refused otherwise to users who
    do not own the file: then the settle time decides. It ends with the descriptor at the latest.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _looks_unfinished(fd: int, size: int) -> bool:
    head = os.pread(fd, HEAD_BYTES, 0)
    tail = os.pread(fd, TAIL_BYTES, max(0, size - TAIL_BYTES))
    return completeness(head, tail) == "unfinished"
