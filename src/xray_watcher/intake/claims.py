"""What is known of an image on its way through the folders, and what may come in between."""

from __future__ import annotations

from dataclasses import dataclass

from xray_watcher.errors import XrayWatcherError


class TargetTaken(XrayWatcherError):
    """Another file has the name that an image was to be filed under."""


class NameRefused(XrayWatcherError):
    """The file system of a target folder does not take a name; it may take a plainer one."""


class ChangedAfterClaim(XrayWatcherError):
    """A claimed file is not the one that was decided upon: its writer went on."""


class Barred(XrayWatcherError):
    """One file of the inbox may not be moved; the others may."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What tells that a claimed file is still the same: size, times, inode."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A file in the work folder, hashed, its bytes known to be on disk."""

    path: str
    sha256: bytes
    signature: Signature


@dataclass(frozen=True, slots=True)
class Move:
    """One image to be filed: from the work folder to a name in a target folder.

    Attributes:
        image_id: its row in the ledger; names its file in the work folder.
        folder: key of the target folder.
        name: its name there.
        sha256: hash of the bytes that were decided upon.
        signature: of the file when it was hashed; None after a restart.
        with_reason: `NAME.json` is to be written beside it.
    """

    image_id: int
    folder: str
    name: str
    sha256: bytes
    signature: Signature | None = None
    with_reason: bool = False
