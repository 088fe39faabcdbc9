"""A file system over a folder that does what shares do on bad days; see `Share`.

    python tests/shares/passthrough.py SOURCE MOUNT_POINT CONTROL_FILE

The control file says what happens to every call: nothing ("ok"), an error by its name ("EIO",
"ESTALE", "EHOSTDOWN" ...), no answer until it says something else ("hang"), no rename flags and no
hard links as on many network file systems ("plain"), or renames that are done and then reported
as failed, as after a lost reply ("rename-then-error").
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import mfusepy


def _disturbed(operation: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that fails as the control file says."""
    name = operation.__name__

    @wraps(operation)
    def disturbed(self: PassThrough, *arguments: Any) -> Any:
        mode = self.mode()
        while mode == "hang":
            time.sleep(0.05)
            mode = self.mode()
        if mode.startswith("E"):
            raise mfusepy.FuseOSError(getattr(errno, mode))
        if mode == "plain" and name == "link":
            raise mfusepy.FuseOSError(errno.EPERM)
        answer = operation(self, *arguments)
        if mode == "rename-then-error" and name == "rename":
            raise mfusepy.FuseOSError(errno.EIO)
        return answer

    return disturbed


class PassThrough(mfusepy.Operations):
    """Passes every call on to a folder, or fails as the control file says."""

    use_ns = True

    def __init__(self, source: str, control: str) -> None:
        self._source, self._control = source, control

    def mode(self) -> str:
        with open(self._control, encoding="ascii") as control:
            return control.read().strip()

    def _at(self, path: str) -> str:
        return self._source + path

    def access(self, path: str, amode: int) -> int:
        if not os.access(self._at(path), amode):
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.fstat(fh) if fh else os.lstat(self._at(path))
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino")
        times = {
            f"st_{name}": getattr(status, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")
        }
        return {name: getattr(status, name) for name in names} | times

    def readdir(self, path: str, _fh: int) -> Iterator[str]:
        yield from (".", "..", *os.listdir(self._at(path)))

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._at(path))
        names = "bavail bfree blocks bsize favail ffree files flag frsize namemax"
        return {f"f_{name}": getattr(status, f"f_{name}") for name in names.split()}

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        if flags:
            raise mfusepy.FuseOSError(errno.EINVAL)
        os.rename(self._at(old), self._at(new))
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._at(source), self._at(target))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._at(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self._at(path), ns=times)
        return 0

    def create(self, path: str, mode: int, _fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~os.O_APPEND)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path) if fh is None else fh, length)
        return 0

    def read(self, _path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, _path: str, content: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, content, offset)

    def fsync(self, _path: str, _datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def fsyncdir(self, _path: str, _datasync: int, _fh: int) -> int:
        return 0

    def release(self, _path: str, fh: int) -> int:
        os.close(fh)
        return 0


for _name, _operation in list(vars(PassThrough).items()):
    if callable(_operation) and not _name.startswith("_") and _name != "mode":
        setattr(PassThrough, _name, _disturbed(_operation))

if __name__ == "__main__":
    folder, mount_point, control_file = sys.argv[1:]
    mfusepy.FUSE(
        PassThrough(os.path.realpath(folder), control_file),
        mount_point,
        foreground=True,
        nothreads=False,
        attr_timeout=0,
        entry_timeout=0,
        fsname="passthrough",
    )
