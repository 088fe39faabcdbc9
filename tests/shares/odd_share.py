"""A file system over a folder whose files have another inode at each look, or are slow to look at.

    python tests/shares/odd_share.py SOURCE MOUNT_POINT inodes
    python tests/shares/odd_share.py SOURCE MOUNT_POINT slow

As go-fuse, unraid's shfs and CIFS with `noserverino` have it; and as a share behind a slow line,
where each entry of a folder costs some milliseconds. SOURCE.looked says how many were looked at.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE)]

import mfusepy  # noqa: E402
from passthrough import PassThrough  # noqa: E402

ENTRY_S = 0.003
"""What it costs to look at one entry, where that is slow."""


class OddShare(PassThrough):
    """Passes every call on to a folder."""

    def __init__(self, source: str, manner: str) -> None:
        super().__init__(source, "")
        self._manner, self._inodes = manner, itertools.count(10_000_000)
        self._scanned, self._looks = Path(f"{source}.looked"), 0
        self._scanned.write_text("0")

    def mode(self) -> str:
        return "ok"

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = super().getattr(path, fh)
        if self._manner == "slow":
            time.sleep(ENTRY_S)
            self._looks += path.endswith(".txt")
            if self._looks % 100 == 0:
                self._scanned.write_text(str(self._looks))
        elif self._manner == "inodes" and path.endswith(".png"):
            status["st_ino"] = next(self._inodes)
        return status

    def readdir(self, path: str, _fh: int) -> Iterator[Any]:
        """With numbers of inodes: without one the C library leaves an entry out."""
        for name in super().readdir(path, _fh):
            status = os.lstat(os.path.join(self._at(path), name))
            yield name, {"st_ino": status.st_ino, "st_mode": status.st_mode}, 0


@contextmanager
def mounted(folder: Path, manner: str) -> Iterator[tuple[Path, Path]]:
    """The folder as its server has it, and as it is mounted."""
    source, point = folder / "server", folder / "share"
    for made in (source, point):
        made.mkdir()
    server = subprocess.Popen(
        [sys.executable, __file__, str(source), str(point), manner], stderr=subprocess.DEVNULL
    )
    try:
        until_s = time.monotonic() + 30
        while not os.path.ismount(point):
            assert time.monotonic() < until_s, "the file system was not mounted"
            time.sleep(0.05)
        yield source, point
    finally:
        subprocess.run(["fusermount3", "-u", "-z", point], check=False)
        server.kill()
        server.wait()


if __name__ == "__main__":
    folder_, mount_point, manner_ = sys.argv[1:]
    mfusepy.FUSE(
        OddShare(os.path.realpath(folder_), manner_),
        mount_point,
        foreground=True,
        nothreads=True,
        use_ino=manner_ == "inodes",
        attr_timeout=0,
        entry_timeout=0,
        fsname="odd-share",
    )
