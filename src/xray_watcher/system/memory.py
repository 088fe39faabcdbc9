"""How much memory this process and its children may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath

_OWN_GROUPS = "/proc/self/cgroup"
_GROUPS = "/sys/fs/cgroup"
_CONTROLLER = "memory"


def of_the_machine() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_bytes(own_groups: str = _OWN_GROUPS, groups: str = _GROUPS) -> int:
    """The least of what the machine has and what the control groups allow (cgroups(7)).

    Args:
        own_groups: the file in which the kernel says where this process is.
        groups: where the tree of control groups is mounted.

    Returns:
        Bytes. A limit that cannot be read is none.
    """
    return min([of_the_machine(), *_limits(own_groups, groups)])


def _limits(own_groups: str, groups: str) -> Iterator[int]:
    for path in _limit_files(own_groups, groups):
        with suppress(OSError, ValueError), open(path, encoding="ascii") as file:  # "max" is none
            yield int(file.read())


def _limit_files(own_groups: str, groups: str) -> Iterator[str]:
    """Of each group that holds this process; a container may not see those in the middle."""
    for controllers, group in _own(own_groups):
        if not controllers:
            root, name = groups, "memory.max"
        elif _CONTROLLER in controllers.split(","):
            root, name = f"{groups}/{_CONTROLLER}", "memory.limit_in_bytes"
        else:
            continue
        for each in (PurePosixPath(group), *PurePosixPath(group).parents):
            yield f"{root}{each}/{name}"


def _own(own_groups: str) -> Iterator[tuple[str, str]]:
    """Controllers, none of them for version 2, and path of each group."""
    with suppress(OSError), open(own_groups, encoding="utf-8", errors="replace") as file:
        for line in file:
            _, _, rest = line.rstrip("\n").partition(":")
            controllers, colon, group = rest.partition(":")
            if colon and group.startswith("/"):
                yield controllers, group
