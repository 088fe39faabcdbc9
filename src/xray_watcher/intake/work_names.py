"""Names in the work folder: a claimed file is named by the id of its row in the ledger."""

from __future__ import annotations

import os

from xray_watcher.errors import Unavailable

_MOST_DIGITS = 18  # more than any id of the ledger has


def work_name(image_id: int) -> str:
    """The name of a claimed file."""
    return f"{image_id:012d}"


def id_of(name: str) -> int | None:
    """The id that a name stands for; None when we give no such name."""
    if not _is_number(name) or len(name) > _MOST_DIGITS or name != work_name(int(name)):
        return None
    return int(name)


def claimed_ids(work: str) -> set[int]:
    """The ids of all claimed files.

    Raises:
        Unavailable: the work folder cannot be listed.
    """
    return {int(name) for name, is_claimed in _numbers(work).items() if is_claimed}


def leftovers(work: str) -> list[str]:
    """The numbers that are no claimed files: links, pipes, folders, and numbers not of ours.

    Raises:
        Unavailable: the work folder cannot be listed.
    """
    return sorted(name for name, is_claimed in _numbers(work).items() if not is_claimed)


def _numbers(work: str) -> dict[str, bool]:
    """Every number in the work folder, and whether it is a claimed file."""
    try:
        with os.scandir(work) as entries:
            return {each.name: _is_claimed(each) for each in entries if _is_number(each.name)}
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise Unavailable(
            "inbox", f"The work folder {work} cannot be listed ({reason})."
        ) from error


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _is_claimed(entry: os.DirEntry[str]) -> bool:
    return id_of(entry.name) is not None and entry.is_file(follow_symlinks=False)
