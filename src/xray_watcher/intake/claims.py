"""What is known of an image on its way through the folders, and what may come in between."""

from __future__ import annotations

from dataclasses import dataclass

from xray_watcher.core.retries import Reason
from xray_watcher.errors import XrayWatcherError


class TargetTaken(XrayWatcherError):
    """Another file has the name that an image was to be filed under."""


class NameRefused(XrayWatcherError):
    """The file system of a target folder does not take a name; it may take a plainer one."""


class ChangedAfterClaim(XrayWatcherError):
    """A claimed file is not the one that was decided upon: its writer went on."""


class FileProblem(XrayWatcherError):
    """One file cannot be read or moved now; everything that is ours is in reach.

    Attributes:
        reason: why; the file is tried again.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.reason = Reason(code, detail)
        super().__init__(detail)


class ClaimUnclear(XrayWatcherError):
    """It cannot be seen whether a file was claimed: look again before anything else is claimed."""


@dataclass(frozen=True, slots=True)
class Signature:
    """How a claimed file is recognised as unchanged.

    Nobody can set the time of the last change. The inode is left out: some file systems make up a
    new one at each look.
    """

    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A file in the work folder.

    Attributes:
        path: where it lies.
        sha256: of its bytes, which are known to be on disk; None when it is not to be read.
        signature: what it was like when it was hashed, or else when it was looked at.
    """

    path: str
    sha256: bytes | None
    signature: Signature


@dataclass(frozen=True, slots=True)
class Move:
    """One image to be filed: from the work folder to a name in a target folder.

    Attributes:
        image_id: its row in the ledger; names its file in the work folder.
        folder: key of the target folder.
        name: its name there.
        sha256: hash of the bytes that were decided upon; None of a file that nobody reads.
        signature: of the file when it was hashed; None after a restart.
        with_reason: `NAME.json` is to be written beside it.
    """

    image_id: int
    folder: str
    name: str
    sha256: bytes | None
    signature: Signature | None = None
    with_reason: bool = False
