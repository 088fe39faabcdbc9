"""Calls that fail, file by file, in the service and its children: the other side of `faults.c`.

    faults = Faults(folder)
    service = Service(root, command=COMMAND, **faults.env)
    rule = faults.add("open", "EIO", mark="bad7", below="/inbox/")
    faults.lift(rule)             # the cause is gone; the service has run all the while

The library is compiled by the C compiler of the machine and preloaded; the rules lie in a file that
every process has mapped. No call of this process fails.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import struct
import subprocess
import tempfile
from pathlib import Path

from machine import lacking

SOURCE = Path(__file__).with_name("faults.c")
CALLS = (
    "open", "read-start", "read-middle", "stat", "listing", "rename", "link", "unlink", "fsync",
    "chown", "utimens", "setlease", "copy", "decode",
)  # fmt: skip
"""In the order of `faults.c`. `decode` is any reading by a decoder, `copy` is writing."""

HANG = "hang"
_HEAD = struct.Struct("=qQIIII")
_SLOT = struct.Struct("=IIiIQ64s64s")
_ALIAS = struct.Struct("=I64s")
_SLOTS, _ALIASES = 64, 256
_ON, _CALLS, _HITS = 0, 4, 16  # where they stand in a slot
_CLOCK, _FREE, _NO_FLAGS, _HANG_MS = 0, 8, 16, 20  # where they stand in the head


def missing() -> str | None:
    """Why there can be no faults here; None if there can."""
    return lacking(cc="gcc libc6-dev")


class Faults:
    """The rules of one service.

    Args:
        folder: for the library and the rules.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "faults"
        path.write_bytes(bytes(_HEAD.size + _SLOTS * _SLOT.size + _ALIASES * _ALIAS.size))
        with path.open("r+b") as file:
            self._table = mmap.mmap(file.fileno(), 0)
        self._next = 0
        self.env = {"LD_PRELOAD": _library(), "XRAY_FAULTS": str(path)}

    def close(self) -> None:
        """Let go of the file with the rules."""
        self._table.close()

    def add(
        self,
        calls: str,
        error: str,
        *,
        mark: str,
        below: str = "",
        percent: int = 100,
        on: bool = True,
    ) -> int:
        """Make a rule.

        Args:
            calls: names of `CALLS`, separated by blanks.
            error: by its name; `HANG` makes one call wait, until the rule is lifted at most.
            mark: a part of the file's name.
            below: a part of the path at which it fails.
            percent: of the calls that fail.
            on: whether it holds at once, or only from `put_on`.
        """
        slot, self._next = self._next, self._next + 1
        what = (_bits(calls), _number(error), percent)
        packed = _SLOT.pack(0, *what, 0, mark.encode(), below.encode())
        self._table[self._at(slot) : self._at(slot) + _SLOT.size] = packed
        if on:
            self.put_on(slot)
        return slot

    def put_on(self, rule: int) -> None:
        """The cause is there."""
        struct.pack_into("=I", self._table, self._at(rule) + _ON, 1)

    def lift(self, rule: int) -> None:
        """The cause is gone."""
        struct.pack_into("=I", self._table, self._at(rule) + _ON, 0)

    def change(self, rule: int, calls: str, error: str) -> None:
        """Let a rule speak of other calls and another error; its files stay marked."""
        struct.pack_into("=Ii", self._table, self._at(rule) + _CALLS, _bits(calls), _number(error))

    def clear(self) -> None:
        """All causes are gone, and every file is forgotten."""
        self._table[_HEAD.size :] = bytes(len(self._table) - _HEAD.size)
        self._next = 0

    def is_on(self, rule: int) -> bool:
        """Whether a rule holds; a hang that is over does not."""
        return bool(struct.unpack_from("=I", self._table, self._at(rule) + _ON)[0])

    def hits(self, rule: int) -> int:
        """How many calls have met a rule."""
        return int(struct.unpack_from("=Q", self._table, self._at(rule) + _HITS)[0])

    def set_clock(self, ahead_s: float) -> None:
        """Move the clock on the wall; the monotonic one goes on."""
        struct.pack_into("=q", self._table, _CLOCK, round(ahead_s * 1e9))

    def set_free(self, free_bytes: int) -> None:
        """Let every disk have so many bytes free; 0 is what there is."""
        struct.pack_into("=Q", self._table, _FREE, free_bytes)

    def refuse_flags(self) -> None:
        """Let `renameat2` know no flags, as on many file systems."""
        struct.pack_into("=I", self._table, _NO_FLAGS, 1)

    def hang_for(self, seconds: float) -> None:
        """So long does a call hang."""
        struct.pack_into("=I", self._table, _HANG_MS, round(seconds * 1000))

    def _at(self, slot: int) -> int:
        assert 0 <= slot < _SLOTS, "there are no more rules"
        return _HEAD.size + slot * _SLOT.size


def _bits(calls: str) -> int:
    return sum(1 << CALLS.index(call) for call in calls.split())


def _number(error: str) -> int:
    return 0 if error == HANG else int(getattr(errno, error))


def _library() -> str:
    """The compiled library; it is compiled once for each state of its source."""
    state = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"xray-watcher-faults-{os.getuid()}-{state}.so"
    if not library.exists():
        part = library.with_suffix(f".{os.getpid()}")
        flags = ["-std=gnu11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
        subprocess.run(["cc", *flags, "-o", part, str(SOURCE), "-ldl"], check=True)
        os.rename(part, library)
    return str(library)
