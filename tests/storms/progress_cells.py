"""The table of `make progress`: which call on a file can fail where, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from faults import CALLS, HANG

ERRORS = (
    "EIO", "ESTALE", "EUCLEAN", "EINVAL", "ENOKEY", "ETIMEDOUT", "EACCES", "EPERM", "EBUSY",
    "EAGAIN", "ENOENT",
)  # fmt: skip
SOFT = ("EAGAIN", "EBUSY", "ENOENT")
"""What may just as well be a writer or a file that leaves: `status` counts it as waiting."""

_RENAMED = "a claim is one rename; nothing else is done to the file in the inbox"
_ENDS = "of a file in the inbox only the head and the tail are read"
_OURS = "it is the folder of all files: then the folder is out of reach, and named so"
_SAME = "within one file system an image is filed by one rename; it is not opened again"
_REMOVED = "an image is removed by unlink, after its bytes were compared"
_READS = "fsck changes nothing and reads as the user who calls it"
_CLAIMED = "a claimed file is only given an inode of its own, where it has two names"

_GIVEN = (
    "a decoder reads what its parent has opened, and its filter keeps the library from seeing "
    "which file that is; tests/imaging/test_decode_pool.py has it"
)

CANNOT: Mapping[str, Mapping[str, str]] = {
    "inbox": {
        "read-middle": _ENDS,
        "listing": _OURS,
        "fsync": "nothing of ours is in it yet; it is flushed when it is claimed",
        **dict.fromkeys(("link", "unlink", "chown", "utimens", "copy", "decode"), _RENAMED),
    },
    "subfolder": {
        "read-middle": _ENDS,
        **dict.fromkeys(("link", "unlink", "chown", "utimens", "copy", "decode"), _RENAMED),
    },
    "claimed": {
        "listing": _OURS,
        "decode": _GIVEN,
        "link": _CLAIMED,
        "setlease": "a lease is asked for before the claim",
    },
    "results": {
        "listing": _OURS,
        "setlease": "a lease is asked for before the claim",
        **dict.fromkeys(
            ("open", "read-start", "read-middle", "fsync", "chown", "utimens", "copy", "decode"),
            _SAME,
        ),
    },
    "results-apart": {
        "listing": _OURS,
        "setlease": "a lease is asked for before the claim",
        "decode": "it is decoded before it is filed",
    },
    "upload": {
        "read-middle": "the file beside an upload has 40 bytes; the image is read when claimed",
        "link": _RENAMED,
        "setlease": "an upload is whole when it is handed over",
        **dict.fromkeys(("chown", "utimens", "copy", "decode"), _RENAMED),
    },
    "retention": {
        "listing": "the ledger says what lies there",
        "setlease": "nobody writes it",
        "fsync": "it is the folder of all: then the folder is out of reach",
        **dict.fromkeys(("rename", "link", "chown", "utimens", "copy", "decode"), _REMOVED),
    },
    "fsck": dict.fromkeys(
        ("rename", "link", "unlink", "fsync", "chown", "utimens", "setlease", "copy", "decode"),
        _READS,
    ),
}
"""By place and call: why there is no such call. Every other pair must be met."""

ONE_FOLDER = {("upload", "listing"), ("upload", "fsync"), ("fsck", "listing")}
"""Calls on a folder that all files share: the errors are tried one after the other."""

VANISHING = {f"{place}/stat/ENOENT" for place in ("claimed", "results", "results-apart")}
"""The kernel says that a claimed file is gone: it is recorded as missing. When it is there again,
it is taken up by the next start, under a name of our own."""

UNSEEN = {"inbox/stat/ENOENT", "subfolder/stat/ENOENT", "subfolder/listing/ENOENT"}
"""The kernel says that nothing is there: nobody can tell of it."""

REAL_PLACES = ("inbox", "subfolder", "claimed", "results")
REAL_CALLS = ("open", "read-start", "read-middle", "stat", "listing", "rename", "fsync")
REAL_ERRORS = ("EIO", "ESTALE", "EACCES")
"""What is also tried on a file system (FUSE) that really fails."""

TWO_NAMES = ("copy", "chown", "utimens", "unlink", "rename")
"""What is only done to a claimed file that has a second name."""


@dataclass(frozen=True)
class Cell:
    """One file fails: where it lies, at which call, with which error."""

    place: str
    call: str
    error: str

    def __str__(self) -> str:
        return f"{self.place}/{self.call}/{self.error}"

    @property
    def fails_folder(self) -> bool:
        """Whether it is the folder of the file on which the call fails."""
        folder = ("listing", "fsync") if self.place in ("subfolder", "upload") else ("listing",)
        return self.call in folder

    @property
    def needs_no_flags(self) -> bool:
        """Whether the call is only made where `renameat2` knows no flags."""
        return self.call == "link" or (self.place, self.call) == ("results", "unlink")

    @property
    def is_told(self) -> bool:
        """Whether `status` must name it, and not just count it as waiting."""
        return self.error not in SOFT


def cells() -> list[Cell]:
    """The cells that can be."""
    return list(_cells())


def _cells() -> Iterator[Cell]:
    for place, cannot in CANNOT.items():
        for call in CALLS:
            if call not in cannot:
                yield from (Cell(place, call, error) for error in (*ERRORS, HANG))


def real_cells() -> list[Cell]:
    """The sample of cells that is also tried on a file system that really fails."""
    return [
        cell
        for cell in cells()
        if cell.place in REAL_PLACES
        and cell.call in REAL_CALLS
        and cell.error in REAL_ERRORS
        and (cell.place, cell.call) != ("claimed", "rename")  # of its second name: a link
    ]


def groups(chosen: list[Cell], *, alone: bool) -> list[tuple[Cell, ...]]:
    """Those that go through one life of the service together: all errors of a call at a place.

    A hang stops everything for its time, so it has a life of its own.
    """
    found: dict[object, list[Cell]] = {}
    for cell in chosen:
        is_alone = alone or cell.error == HANG or (cell.place, cell.call) in ONE_FOLDER
        is_alone = is_alone or str(cell) in VANISHING
        found.setdefault(cell if is_alone else (cell.place, cell.call), []).append(cell)
    return [tuple(group) for group in found.values()]
