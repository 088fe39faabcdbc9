"""Folders in folders, deeper than paths and recursion reach; made and removed step by step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def deep_tree(top: str, name: str, depth: int) -> Iterator[int]:
    """Nest folders of one name below `top` and hand out the deepest, opened.

    All of it is removed afterwards, with the files in the deepest: `shutil.rmtree`, by which
    pytest tidies up, recurses.
    """
    fd = os.open(top, _FOLDER)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        fd = _entered(fd, name)
    try:
        yield fd
    finally:
        for file in os.listdir(fd):
            os.unlink(file, dir_fd=fd)
        for _ in range(depth):
            fd = _entered(fd, "..")
            os.rmdir(name, dir_fd=fd)
        os.close(fd)


def _entered(fd: int, name: str) -> int:
    child = os.open(name, _FOLDER, dir_fd=fd)
    os.close(fd)
    return child
