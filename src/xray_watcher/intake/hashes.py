"""Whether the file at a path still holds the bytes that were decided upon."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from xray_watcher.core.values import LARGEST_FILE_BYTES
from xray_watcher.intake.claims import ChangedAfterClaim
from xray_watcher.system.files import OPEN_FILE, compute_sha256


def check_filed(target: str, sha256: bytes, beat: Callable[[], None]) -> None:
    """Accept an image that was filed before a kill.

    Raises:
        FileNotFoundError: it is not there.
        ChangedAfterClaim: something else is there.
    """
    if not has_hash(target, sha256, beat):
        if os.path.lexists(target):
            raise ChangedAfterClaim("A filed image changed before its record was written.")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def has_hash(path: str, sha256: bytes, beat: Callable[[], None] = lambda: None) -> bool:
    """Whether a regular file lies at a path and holds just these bytes; no link is followed.

    A larger file than may be taken is none of ours, and not read.

    Raises:
        OSError: it cannot be read.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE_BYTES:
            return False
        fd = os.open(path, OPEN_FILE)
    except FileNotFoundError:
        return False
    try:
        return compute_sha256(fd, LARGEST_FILE_BYTES, beat) == sha256
    finally:
        os.close(fd)
