"""The way to a file below the inbox, on which no symbolic link is followed.

Somebody may swap a folder for a link between a look and a claim; each part of the path is
therefore opened by itself, relative to the one before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from xray_watcher.errors import Unavailable
from xray_watcher.system.files import OPEN_FILE

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""For opening a folder that may be a link put there by somebody else."""


@contextmanager
def open_parent(inbox: str, path: str) -> Iterator[int]:
    """Open the folder in which a path below the inbox ends.

    Args:
        inbox: may itself be reached by a link.
        path: below it, as `os.fsdecode` makes it.

    Raises:
        OSError: a part is missing (ENOENT), is a link (ELOOP) or no folder (ENOTDIR).
    """
    fd = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.split("/")[:-1]:
            child = os.open(part, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = child
        yield fd
    finally:
        os.close(fd)


def check_device(inbox: str, work: str) -> int:
    """The device of the inbox; an empty mount point is not an empty inbox.

    Args:
        inbox: the inbox.
        work: the work folder; it stays on the inbox's file system.

    Raises:
        Unavailable: one of them is missing, or they lie on different devices.
    """
    try:
        device, work_device = os.stat(inbox).st_dev, os.stat(work).st_dev
    except OSError as error:
        raise Unavailable(
            "inbox",
            f"The inbox {inbox} or its work folder {work} is not there "
            f"({os.strerror(error.errno or 0)}). Is the share mounted?",
        ) from error
    if device != work_device:
        raise Unavailable(
            "inbox",
            f"Another file system lies under the inbox {inbox} than under its work folder {work}. "
            "Is the share mounted, or something else in its place?",
        )
    return device


@contextmanager
def open_nofollow(inbox: str, path: str) -> Iterator[int]:
    """Open a file below the inbox for reading; a pipe is not waited for.

    Raises:
        OSError: as `open_parent`.
    """
    with open_parent(inbox, path) as parent:
        fd = os.open(os.path.basename(path), OPEN_FILE, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)
