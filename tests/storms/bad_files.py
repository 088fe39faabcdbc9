"""A file system over a folder on which single files fail, as `faults.c` has it, but for real.

    python tests/storms/bad_files.py SOURCE MOUNT_POINT RULES

RULES is a file with a JSON list of rules, which `FuseFaults` writes: call, error, mark, below, on.
How often each was met is written beside it. A part of the cells of `make progress` is tried here
as well, to see that the preloaded library tells the truth.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "shares")]

import mfusepy  # noqa: E402
from passthrough import PassThrough  # noqa: E402

BLOCK = 4096


class BadFiles(PassThrough):
    """Passes every call on to a folder, but for those that a rule names."""

    def __init__(self, source: str, rules: str) -> None:
        super().__init__(source, rules)
        self._met = Path(f"{rules}.met")
        self._seen, self._rules = (0, 0), list[dict[str, Any]]()
        self._hits = dict[int, int]()
        self._aliases = dict[int, set[str]]()

    def mode(self) -> str:
        """For the calls of the class below: none of them fails as a whole."""
        return "ok"

    def _now(self) -> list[dict[str, Any]]:
        status = os.stat(self._control)
        if self._seen != (status.st_mtime_ns, status.st_ino):
            self._seen = (status.st_mtime_ns, status.st_ino)
            self._rules = json.loads(Path(self._control).read_text())
        return self._rules

    def check(self, call: str, path: str) -> None:
        """Raise the error that a rule names."""
        for number, rule in enumerate(self._now()):
            if rule["on"] and rule["call"] == call and self._is_named(number, rule, path):
                self._hits[number] = self._hits.get(number, 0) + 1
                self._met.write_text(json.dumps(self._hits))
                raise mfusepy.FuseOSError(getattr(errno, rule["error"]))

    def _is_named(self, number: int, rule: dict[str, Any], path: str) -> bool:
        marks = {rule["mark"], *self._aliases.get(number, ())}
        name = os.path.basename(path)
        return rule["below"] in path and any(mark in name for mark in marks)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if fh is None:  # what is open has been looked at
            self.check("stat", path)
        return super().getattr(path, fh)

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        self.check("listing", path)
        return super().readdir(path, fh)

    def open(self, path: str, flags: int) -> int:
        self.check("open", path)
        return super().open(path, flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        path = os.readlink(f"/proc/self/fd/{fh}").removeprefix(self._source)  # renamed meanwhile
        if offset < BLOCK:
            self.check("read-start", path)
        middle = os.fstat(fh).st_size // 2
        if offset <= middle < offset + size:
            self.check("read-middle", path)
        return super().read(path, size, offset, fh)

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self.check("rename", old)
        result = super().rename(old, new, flags)
        for number, rule in enumerate(self._now()):
            if self._is_named(number, rule | {"below": ""}, old):
                self._aliases.setdefault(number, set()).add(os.path.basename(new))
        return result

    def unlink(self, path: str) -> int:
        self.check("unlink", path)
        return super().unlink(path)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self.check("fsync", path)
        return super().fsync(path, datasync, fh)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self.check("fsync", path)
        return super().fsyncdir(path, datasync, fh)


class FuseFaults:
    """Does what `faults.Faults` does, by a mounted file system; the root has to lie on it.

    Args:
        folder: for the file system.
    """

    def __init__(self, folder: Path) -> None:
        self.env: dict[str, str] = {}
        self.mounted, self.source = folder / "mounted", folder / "source"
        self._path = folder / "rules"
        self._rules: list[dict[str, Any]] = []
        self._write()
        for made in (self.source, self.mounted):
            made.mkdir()
        arguments = [str(path) for path in (self.source, self.mounted, self._path)]
        self._server = subprocess.Popen(
            [sys.executable, __file__, *arguments], stderr=subprocess.DEVNULL
        )
        _until(lambda: os.path.ismount(self.mounted))

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["fusermount3", "-u", "-z", self.mounted], check=False)
        self._server.kill()
        self._server.wait()

    def add(self, call: str, error: str, *, mark: str, below: str = "", on: bool = True) -> int:
        """Make a rule."""
        # Seen from the root of the mount, a path begins with a slash as well.
        self._rules.append({"call": call, "error": error, "mark": mark, "below": below, "on": on})
        self._write()
        return len(self._rules) - 1

    def put_on(self, rule: int) -> None:
        """The cause is there."""
        self._rules[rule]["on"] = True
        self._write()

    def lift(self, rule: int) -> None:
        """The cause is gone."""
        self._rules[rule]["on"] = False
        self._write()

    def is_on(self, rule: int) -> bool:
        """Whether a rule holds."""
        return bool(self._rules[rule]["on"])

    def hits(self, rule: int) -> int:
        """How many calls have met a rule."""
        try:
            met = json.loads(self._path.with_name("rules.met").read_text())
        except (OSError, ValueError):
            return 0
        return int(met.get(str(rule), 0))

    def hang_for(self, seconds: float) -> None:
        """Nothing hangs here."""

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._rules))
        os.rename(new, self._path)


def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    raise RuntimeError("the file system was not mounted")


if __name__ == "__main__":
    folder, mount_point, rules_file = sys.argv[1:]
    mfusepy.FUSE(
        BadFiles(os.path.realpath(folder), rules_file),
        mount_point,
        foreground=True,
        nothreads=True,
        attr_timeout=0,
        entry_timeout=0,
        direct_io=True,
        fsname="bad-files",
    )
