"""Whether the file at a path still holds the bytes that were decided upon."""

from __future__ import annotations

import errno
import os
import stat

from xray_watcher.intake.claims import ChangedAfterClaim
from xray_watcher.system.files import OPEN_FILE, sha256_of


def check_filed(target: str, sha256: bytes) -> None:
    """Accept an image that was filed before a kill.

    Raises:
        FileNotFoundError: it is not there.
        ChangedAfterClaim: something else is there.
    """
    if not has_hash(target, sha256):
        if os.path.lexists(target):
            raise ChangedAfterClaim("A filed image changed before its record was written.")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def has_hash(path: str, sha256: bytes) -> bool:
    """Whether a regular file lies at a path and holds just these bytes; no link is followed.

    Raises:
        OSError: it cannot be told.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        fd = os.open(path, OPEN_FILE)
    except FileNotFoundError:
        return False
    try:
        return sha256_of(fd) == sha256
    finally:
        os.close(fd)
