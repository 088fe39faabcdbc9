"""Which file system a folder lies on, and folders that are never made where their share was.

When a share goes away, an empty folder of the machine's own disk lies in its place. What is written
there would be hidden as soon as the share is back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from xray_watcher.core.naming import MAX_NAME_BYTES
from xray_watcher.errors import Unavailable
from xray_watcher.system.advice import refusal

NETWORK_FILE_SYSTEMS = (
    "9p", "afs", "beegfs", "ceph", "cifs", "fakeowner", "fuse", "gfs2", "glusterfs", "gpfs",
    "lustre", "nfs", "ocfs2", "prl_fs", "smb", "vboxsf", "virtiofs", "vmhgfs",
)  # fmt: skip
"""Beginnings of file-system types on which other hosts write without an event here."""

_MOUNTS = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Attributes:
        point: where it is mounted.
        device: "major:minor"; a share has another one each time it is mounted.
        kind: type, as `ext4` or `cifs`.
        source: a disk, or a share as `//nas/xray`.
    """

    point: str
    device: str
    kind: str
    source: str

    @property
    def is_network(self) -> bool:
        """Whether other hosts may write there without an event on this one."""
        return self.kind.startswith(NETWORK_FILE_SYSTEMS)


def find_mount(path: str) -> Mount:
    """The file system that a path lies on; without type if the kernel does not show it."""
    real, best = os.path.realpath(path), Mount("", "", "", "")
    for mount in _mounts():
        inside = real == mount.point or real.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(best.point):
            best = mount
    return best


def is_network(path: str) -> bool:
    """Whether other hosts may write there without an event on this one."""
    return find_mount(path).is_network


def is_same_mount(path: str, other: str) -> bool:
    """Whether a file can be renamed from one folder to the other.

    The kernel renames within one mount alone: also where the same disk is mounted in two places.
    """
    return (
        find_mount(path).point == find_mount(other).point
        and os.stat(path).st_dev == os.stat(other).st_dev
    )


def is_network_device(device: int) -> bool:
    """Whether a device number, as in `st_dev`, is that of a share."""
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(mount.is_network for mount in _mounts() if mount.device == number)


def longest_name(folder: str) -> int:
    """How many bytes a name in a folder may have: 255, or less if its file system says so."""
    try:
        longest = os.statvfs(folder).f_namemax
    except OSError:
        return MAX_NAME_BYTES  # a name that is too long then fails when it is made
    return min(longest or MAX_NAME_BYTES, MAX_NAME_BYTES)


class GuardedFolder:
    """A folder of ours that is made again when somebody has removed it.

    Args:
        folder: it lies on its own file system when this is called, or would if it were there.

    Raises:
        Unavailable: its file system does not answer.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        try:
            self._device = _nearest_device(folder)
            self._mount = find_mount(folder)
        except OSError as error:
            raise Unavailable(
                "folders", refusal(f"It cannot be seen what {folder} is", error)
            ) from (error)

    def keep(self) -> None:
        """See that the folder is there, but do not make it where its share was.

        Raises:
            Unavailable: another file system lies there than at the start.
            OSError: it cannot be made.
        """
        device = _nearest_device(self.folder)
        if device != self._device:
            self._check_is_same_share()
            self._device = device
        os.makedirs(self.folder, exist_ok=True)

    def _check_is_same_share(self) -> None:
        now, before = find_mount(self.folder), self._mount
        if now.is_network and (now.kind, now.source) == (before.kind, before.source):
            return  # it was mounted again
        raise Unavailable(
            "folders",
            f"Another file system lies at {self.folder} than at the start. Is its share mounted?",
        )


def has_vanished(path: str) -> bool:
    """Whether a file is missing in its folder, and not the folder with its share.

    Raises:
        Unavailable: the folder is out of reach.
    """
    folder = os.path.dirname(path)
    if _is_there(path):
        return False
    _check_is_there(folder)
    is_there = _is_there(path)
    _check_is_there(folder)  # it was there before and after
    return not is_there


def _check_is_there(folder: str) -> None:
    if not _is_there(folder):
        raise Unavailable("storage", f"The folder {folder} is not there. Is its share mounted?")


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        what = f"It cannot be seen what lies in {os.path.dirname(path)}"
        raise Unavailable("storage", f"{what} ({os.strerror(error.errno or 0)}).") from error
    return True


def _nearest_device(folder: str) -> int:
    """Device of the folder, or of what is there of the way to it.

    Raises:
        OSError: the file system does not answer.
    """
    try:
        return os.stat(folder).st_dev
    except FileNotFoundError:
        return _nearest_device(os.path.dirname(folder))


def _mounts() -> Iterator[Mount]:
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            fields = line.split()
            kind, source = fields[fields.index("-") + 1 :][:2]
            yield Mount(_unescaped(fields[4]), fields[2], kind, _unescaped(source))


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)
