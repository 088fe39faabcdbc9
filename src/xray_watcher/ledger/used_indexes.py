"""Which indexes are in use, as logs and names of results show: the ledger may be an older one.

A ledger comes back by a backup, a snapshot of the disk, or `cp`, and says nothing of it. So both
are asked at each start: a log may be missing, and an image may have been moved or removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import structlog

from xray_watcher.core.naming import LARGEST_INDEX, parse_index
from xray_watcher.errors import Unavailable
from xray_watcher.system.files import names_in

_LARGEST_OF_OURS = LARGEST_INDEX // 10
"""A larger number in a name is a time, or another program's; 100 images a second take 30 years."""

_LAST_BYTES = (1 << 14, 1 << 18)  # a line has some kilobytes; a torn end may have more

_log = structlog.get_logger()


def highest_index(logs: str, folders: Iterable[str]) -> int:
    """The highest index that any log or any name of a result has; -1 if there is none.

    Args:
        logs: the folder of the logs; it may be missing.
        folders: where images are filed; each may be missing.

    Raises:
        Unavailable: a folder cannot be listed.
    """
    in_logs = (_last_logged(os.path.join(logs, name)) for name in _names(logs, "logs")
               if name.endswith(".jsonl") or ".jsonl.conflict-" in name)  # fmt: skip
    in_names = (_highest_named(_names(folder, "folders")) for folder in folders)
    return max([-1, *in_logs, *in_names])


def last_index_in(path: str) -> int:
    """The index on the last whole line of a JSONL log; -1 if there is none.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as log:
        size = os.fstat(log.fileno()).st_size
        for last_bytes in _LAST_BYTES:
            log.seek(max(size - last_bytes, 0))
            for line in reversed(log.read(last_bytes).splitlines()):
                if (index := _index_in(line)) is not None:
                    return index
    return -1


def _names(folder: str, component: str) -> list[str]:
    try:
        return names_in(folder)
    except OSError as error:
        raise Unavailable(
            component,
            f"The folder {folder} cannot be listed ({os.strerror(error.errno or 0)}), so the next "
            "free index is not known. Give this user read permission there.",
        ) from error


def _highest_named(names: list[str]) -> int:
    indexes = (parse_index(name) for name in names)
    return max((i for i in indexes if i is not None and i <= _LARGEST_OF_OURS), default=-1)


def _last_logged(path: str) -> int:
    """The same; a log that cannot be read is passed over.

    The names of its images are still looked at, and an old log on a bad sector must keep no
    service from its start.
    """
    try:
        return last_index_in(path)
    except OSError as error:
        _log.warning(
            "a log cannot be read",
            code="log_unreadable",
            log=os.path.basename(path),
            error=error.strerror,
        )
    return -1


def _index_in(line: bytes) -> int | None:
    try:
        index = json.loads(line)["index"]
    except (ValueError, TypeError, KeyError):  # a torn line, or another file's
        return None
    return index if type(index) is int and 0 <= index <= _LARGEST_OF_OURS else None
