"""Files that last: renames that never overwrite, copies and writes that survive a power cut.

The only module that renames, replaces or links files. The sources, the work folder and the folders
of results in `intake/` alone do so to images, through this one.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from xray_watcher.errors import StorageFailure
from xray_watcher.system.mounts import is_network_device

OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""For reading what somebody else put there: no link is followed, no pipe waited for."""

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""Where others may write too: neither a file of theirs is opened nor a link followed."""

_CHUNK_BYTES = 1 << 20
_FACTS_BYTES = 1 << 20  # many times what any such file of ours holds
_AT_CWD = -100
_RENAME_NOREPLACE = 1
_NO_FLAGS = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

_libc = ctypes.CDLL(None, use_errno=True)


def rename_noreplace(
    source: str,
    target: str,
    *,
    source_dir: int | None = None,
    target_dir: int | None = None,
    is_own_name: bool = False,
) -> None:
    """Rename unless the target exists, on file systems without that flag by link and unlink.

    Args:
        source: the file.
        target: its new name.
        source_dir: what `source` is relative to, opened; None is the current folder.
        target_dir: likewise for `target`.
        is_own_name: nobody else ever makes a file with the new name. Then a look and a plain
            rename do where the flag is unknown: between link and unlink a kill would leave
            the file under both names.

    Raises:
        FileExistsError: the target exists.
        OSError: the rename failed.
    """
    result = _libc.renameat2(
        _AT_CWD if source_dir is None else source_dir,
        os.fsencode(source),
        _AT_CWD if target_dir is None else target_dir,
        os.fsencode(target),
        _RENAME_NOREPLACE,
    )
    if result == 0:
        return
    code = ctypes.get_errno()
    if code not in _NO_FLAGS:
        raise OSError(code, os.strerror(code))
    if is_own_name:
        _rename_to_own_name(source, target, source_dir, target_dir)
        return
    try:
        os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_onto_placeholder(source, target, source_dir, target_dir)
        return
    os.unlink(source, dir_fd=source_dir)  # if that is refused, the file has both names


def _rename_to_own_name(
    source: str, target: str, source_dir: int | None, target_dir: int | None
) -> None:
    with suppress(FileNotFoundError):
        os.stat(target, dir_fd=target_dir, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)


def _rename_onto_placeholder(
    source: str, target: str, source_dir: int | None, target_dir: int | None
) -> None:
    """Take the name with an empty file that must be new, then replace just that."""
    fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, dir_fd=target_dir)
    os.close(fd)
    try:
        os.rename(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)
    except OSError:
        os.unlink(target, dir_fd=target_dir)
        raise


def move(source: str, target: str, part: str) -> None:
    """Rename unless the target exists; across file systems under the name `part` until whole.

    The source is only removed when the target lasts through a power cut.

    Args:
        source: the file.
        target: its new name.
        part: a name of our own in the target's folder, under which nothing is kept.

    Raises:
        FileExistsError: the target exists.
        OSError: it failed; the source stays. `part` is removed, unless that failed too.
    """
    try:
        rename_noreplace(source, target, is_own_name=True)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _move_across(source, target, part)


def _move_across(source: str, target: str, part: str) -> None:
    try:
        copy(source, part)
        rename_noreplace(part, target, is_own_name=True)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    sync_folder(os.path.dirname(target))
    os.unlink(source)


def make_folders(path: str, mode: int = 0o777) -> None:
    """Make a folder and those above it where they are missing; `os.makedirs` nests calls.

    Raises:
        OSError: one cannot be made.
    """
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(folder, mode if folder == missing[0] else 0o777)


def copy(source: str, target: str, beat: Callable[[], None] = lambda: None) -> None:
    """Copy bytes, and mode, owner and times where allowed, to a file that is then on disk.

    Args:
        source: the file.
        target: a name of our own; a file that a killed process left there is removed.
        beat: is called after each piece.

    Raises:
        OSError: it cannot be copied, or the disk did not confirm.
    """
    with (
        open(os.open(source, OPEN_FILE), "rb") as reader,
        open(_create(target, 0o666), "wb") as writer,
    ):
        while chunk := os.read(reader.fileno(), _CHUNK_BYTES):  # `read` takes EAGAIN for the end
            writer.write(chunk)
            beat()
        writer.flush()
        status = os.fstat(reader.fileno())
        with suppress(OSError):  # not every file system has owners, nor every user the right
            os.fchown(writer.fileno(), status.st_uid, status.st_gid)
        with suppress(OSError):
            os.fchmod(writer.fileno(), stat.S_IMODE(status.st_mode))
        with suppress(OSError):
            os.utime(writer.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        flush(writer.fileno())


def compute_sha256(
    fd: int, at_most: int | None = None, beat: Callable[[], None] = lambda: None
) -> bytes:
    """SHA-256 of an open file from its beginning; `beat` is called after each piece.

    At most so many bytes are read, for a file that grows meanwhile would have no end.
    """
    digest = hashlib.sha256()
    offset = 0
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        digest.update(chunk)
        offset += len(chunk)
        beat()
        if at_most is not None and offset > at_most:
            break
    return digest.digest()


def names_in(folder: str) -> list[str]:
    """The names in a folder; none when there is no such folder.

    Raises:
        OSError: it cannot be listed, or is said to be gone and is not.
    """
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        if os.path.lexists(folder):
            raise
        return []


def remove(path: str) -> None:
    """Remove a file; nothing is done when there is none.

    Raises:
        OSError: it cannot be removed, or is said to be gone and is not.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        if os.path.lexists(path):
            raise


def probe(folder: str) -> None:
    """Create, flush, rename and remove a file there, to see that all of that is possible.

    Raises:
        OSError: it is not.
        StorageFailure: the disk did not confirm.
    """
    # Always the same names: the next probe removes what a killed process leaves here.
    first, second = (os.path.join(folder, f".tmp.probe-{end}") for end in "ab")
    with open(first, "wb") as probe:
        sync(probe.fileno())
    os.rename(first, second)
    os.unlink(second)


@contextmanager
def directory(path: str) -> Iterator[int]:
    """Open a folder, for the calls that take one."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def keep_to_owner(path: str) -> None:
    """Let nobody but its owner write in a folder, and hand no ACL on to what is made there.

    Raises:
        OSError: it is missing, a link, another user's, or its file system has no permissions.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # it has none, or the file system has no ACLs
            os.removexattr(fd, "system.posix_acl_default")
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & ~0o022)  # with an ACL it is the mask
    finally:
        os.close(fd)


def sync_folder(path: str) -> None:
    """Make the names in a folder last through a power cut.

    Raises:
        StorageFailure: the disk did not confirm.
    """
    with directory(path) as fd:
        sync(fd)


def sync(fd: int) -> None:
    """Flush to disk. A failed flush cannot be repeated: Linux marks the pages clean.

    Only on a share it is the network that fails now and then; whoever writes there writes anew.

    Raises:
        OSError: the share did not confirm.
        StorageFailure: the disk did not confirm.
    """
    try:
        flush(fd)
    except OSError as error:
        if is_network_device(os.fstat(fd).st_dev):
            raise
        raise StorageFailure(
            f"The disk did not confirm a write ({os.strerror(error.errno or 0)}). The service "
            "stops; what is open is taken up at the next start. Check the disk."
        ) from error


def flush(fd: int) -> None:
    """Flush to disk what is written anew, from its beginning, when that fails.

    Raises:
        OSError: disk or share did not confirm.
    """
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # there is no such thing for folders
            raise


def replace(source: str, target: str) -> None:
    """Rename over a file of our own making."""
    os.replace(source, target)


def write_whole(
    path: str, content: bytes, mode: int = 0o644, *, whatever_umask: bool = False
) -> None:
    """Write a file of our own making: readers see the old content or the new, never a part.

    Args:
        path: of the file.
        content: all of it.
        mode: its permissions, of which the process's umask takes some away.
        whatever_umask: the permissions are those, for readers that the umask would shut out.

    Raises:
        OSError: it cannot be written; the old content stands.
        StorageFailure: the disk did not confirm.
    """
    folder, name = os.path.split(path)
    short = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]  # the name may be as long as can be
    part = os.path.join(folder, f".tmp.{short}")
    fd = _create(part, mode)
    try:
        with open(fd, "wb") as writer:
            if whatever_umask:
                os.fchmod(fd, mode)
            writer.write(content)
            writer.flush()
            sync(fd)
        replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def _create(path: str, mode: int) -> int:
    """Create a file under a name of our own, for writing; a killed process may have left one."""
    remove(path)
    return os.open(path, NEW_FILE, mode)


def read_facts(path: str) -> dict[str, Any]:
    """The JSON object in a small file of ours; empty when none can be read."""
    try:
        return load_facts(path)
    except OSError:
        return {}


def load_facts(path: str) -> dict[str, Any]:
    """The JSON object in a small file of ours; empty when there is none.

    Raises:
        OSError: the file cannot be read now.
    """
    try:
        fd = os.open(path, OPEN_FILE)
    except OSError as error:
        is_gone = error.errno == errno.ENOENT and not os.path.lexists(path)
        if is_gone or error.errno == errno.ELOOP:  # a link is nothing of ours
            return {}
        raise
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        facts = json.loads(os.pread(fd, _FACTS_BYTES, 0)) if is_file else None
    except (ValueError, RecursionError):
        return {}
    finally:
        os.close(fd)
    return facts if isinstance(facts, dict) else {}


def write_all(fd: int, content: bytes | bytearray, offset: int) -> None:
    """Write all of it at an offset: a full disk may make a write short without an error.

    Raises:
        OSError: it cannot be written.
    """
    view = memoryview(content)
    while view:
        written = os.pwrite(fd, view, offset)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        offset += written
        view = view[written:]
