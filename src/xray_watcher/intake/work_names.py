"""Names in the work folder: a claimed file is named by the id of its row in the ledger."""

from __future__ import annotations

_MOST_DIGITS = 18  # more than any id of the ledger has


def work_name(image_id: int) -> str:
    """The name of a claimed file."""
    return f"{image_id:012d}"


def parse_work_name(name: str) -> int | None:
    """The id that a name stands for; None when we give no such name."""
    if not is_number(name) or len(name) > _MOST_DIGITS or name != work_name(int(name)):
        return None
    return int(name)


def is_number(name: str) -> bool:
    """Whether a name has digits alone."""
    return name.isascii() and name.isdecimal()
