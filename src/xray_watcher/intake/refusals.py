"""What the kernel's answers say: of one file, of a folder, of a share."""

from __future__ import annotations

import errno
import os

from xray_watcher.errors import Unavailable
from xray_watcher.intake.claims import FileProblem, Signature

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""What the kernel says when a file is not there any more, or a link or a device in its place."""

FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
"""What it says of a file that belongs to others."""

BUSY = frozenset({errno.EBUSY, errno.ETXTBSY, errno.EAGAIN})
"""What it says of a file that others keep for themselves; EAGAIN: somebody holds a lease."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What it says where nothing can be written; that is never one file's fault."""

REFUSING = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})
"""What file systems say of a name: too long, or with a character that they do not have."""


def file_problem(code: str, error: OSError) -> FileProblem:
    """A problem of one file, by the kernel's answer; `code` is used where that says nothing."""
    if error.errno in BUSY:
        code = "busy"
    elif error.errno in FORBIDDEN:
        code = "forbidden"
    elif error.errno == errno.EXDEV:
        code = "other_disk"
    return FileProblem(code, kernel_reason(error))


def kernel_reason(error: OSError) -> str:
    """The kernel's answer in words."""
    return os.strerror(error.errno or 0)


def unavailable(component: str, what: str, error: OSError) -> Unavailable:
    """Something of ours is out of reach, with the kernel's answer."""
    return Unavailable(component, f"{what} ({kernel_reason(error)}).")


def make_signature(status: os.stat_result) -> Signature:
    """How a claimed file is recognised as unchanged."""
    return Signature(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
