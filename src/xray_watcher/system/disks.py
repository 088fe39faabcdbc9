"""How much room the disks have; a share that hangs holds up nobody."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial

from xray_watcher.errors import Unavailable
from xray_watcher.system.deadline import answer_in_time


def free_bytes(folder: str) -> int:
    """Bytes that a user without privileges can still write on the file system of a folder.

    Raises:
        Unavailable: it does not say.
    """
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise Unavailable(
            "disk",
            f"The free space under {folder} is not known ({os.strerror(error.errno or 0)}).",
        ) from error
    return status.f_bavail * status.f_frsize


def answering(folders: Iterable[str], seconds: float) -> Iterator[tuple[str, int, int]]:
    """Each folder that answers in time, with its device and the free bytes there."""
    for folder in folders:
        with suppress(Unavailable):
            answer = answer_in_time(partial(_device_and_free, folder), seconds, folder)
            if answer is not None:
                yield folder, answer[0], answer[1]


def _device_and_free(folder: str) -> tuple[int, int]:
    return os.stat(folder).st_dev, free_bytes(folder)
