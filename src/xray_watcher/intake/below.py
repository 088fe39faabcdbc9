"""The way to a file below the inbox, on which no symbolic link is followed.

Somebody may swap a folder for a link between a look and a claim; each part of the path is
therefore opened by itself, relative to the one before. On the way back of a file, missing
folders are made likewise, but never the inbox: it is missing when its share is away.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xray_watcher.core.naming import safe_name
from xray_watcher.errors import Unavailable
from xray_watcher.system.files import OPEN_FILE

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""For opening a folder that may be a link put there by somebody else."""


@contextmanager
def parent_below(inbox: str, path: str) -> Iterator[int]:
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


@contextmanager
def made_below(inbox: str, work: str, path: str) -> Iterator[int]:
    """Open the folder in which a path below the inbox is to end; missing ones are made.

    Args:
        inbox: it is never made, and may itself be reached by a link.
        work: the work folder, on the inbox's file system.
        path: below the inbox.

    Raises:
        Unavailable: the share of the inbox is away, or a part is a link or no folder.
        OSError: a folder cannot be made or opened.
    """
    device = checked_device(inbox, work)
    fd = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_dev != device:  # a share came or went between the look and this
            raise _other_device(inbox, work)
        parts = path.split("/")[:-1]
        for number, part in enumerate(parts, start=1):
            try:
                child = _made(part, fd)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise _no_folder(parts[:number]) from error
            os.close(fd)
            fd = child
        yield fd
    finally:
        os.close(fd)


def checked_device(inbox: str, work: str) -> int:
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
        raise _other_device(inbox, work)
    return device


@contextmanager
def opened_below(inbox: str, path: str) -> Iterator[int]:
    """Open a file below the inbox for reading; a pipe is not waited for.

    Raises:
        OSError: as `parent_below`.
    """
    with parent_below(inbox, path) as parent:
        fd = os.open(os.path.basename(path), OPEN_FILE, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _made(name: str, parent: int) -> int:
    """Open a folder, made if it is missing."""
    with suppress(FileNotFoundError):
        return os.open(name, FOLDER, dir_fd=parent)
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)
    return os.open(name, FOLDER, dir_fd=parent)


def _other_device(inbox: str, work: str) -> Unavailable:
    return Unavailable(
        "inbox",
        f"Another file system lies under the inbox {inbox} than under its work "
        f"folder {work}. Is the share mounted, or something else in its place?",
    )


def _no_folder(parts: list[str]) -> Unavailable:
    shown = "/".join(safe_name(part) for part in parts)
    return Unavailable(
        "inbox",
        f"{shown} in the inbox is no folder, or a link to one. Nothing is put back through it: "
        "remove or rename it, and try again.",
    )
