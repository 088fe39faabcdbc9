"""The second door: finished uploads that the web hands to the daemon, by one rename each.

In the folder `uploads` of the work folder, on the inbox's own file system, lie for one upload

    NAME.part    while it comes in: the web writes it, under a name that it has made itself
    NAME.json    what the client calls the file; written before the image is handed over
    NAME.image   the whole image, its bytes on disk: from here on the daemon answers for it

The daemon claims an image as it claims a file of the inbox, row first, then one rename, and
needs no settle time for it. It removes the small file after that. What the web leaves behind
when it is killed is no image: its client has had no answer. It is removed when it has not
changed for an hour.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from xray_watcher.core.naming import client_name
from xray_watcher.core.values import Arrival, SeenFile
from xray_watcher.errors import Unavailable
from xray_watcher.system.files import (
    NEW_FILE,
    directory,
    move,
    read_facts,
    rename_noreplace,
    sync,
    sync_folder,
    write_all,
)
from xray_watcher.system.mounts import has_vanished

SOURCE = "web"
"""What stands in `source` of the record of an upload."""

STALE_S = 3600.0
"""What is no image and has not changed for this long was left behind."""

_FOLDER = "uploads"
_PART, _SIDECAR, _IMAGE = ".part", ".json", ".image"
_CLEAN_EVERY_S = 600.0
_MODE = 0o640


def uploads_folder(work: str) -> str:
    """Where uploads are handed over, for a work folder."""
    return os.path.join(work, _FOLDER)


def new_batch(now: datetime) -> str:
    """The id of a request's uploads: those of a later second come later."""
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}"


def is_batch(text: str) -> bool:
    """Tell whether a text can be the id of a request, and is not just the beginning of one."""
    return re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{12}", text, re.ASCII) is not None


def upload_name(batch: str, position: int) -> str:
    """The name of one upload: its request's id, and its position among that request's files."""
    return f"{batch}-{position:06d}"


def position_of(upload: str) -> int:
    """The position that an upload's name tells."""
    return int(upload.rpartition("-")[2])


# -- the web's side -----------------------------------------------------------------------


class Upload:
    """One file that comes in; every method may wait for the disk.

    Args:
        folder: of the uploads.
        name: made by the web, and new.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.bytes = 0
        self._folder = folder
        self._fd = os.open(self._path(_PART), NEW_FILE, _MODE)

    def write(self, content: bytes | bytearray) -> None:
        """Add what has come in.

        Raises:
            OSError: it cannot be written.
        """
        write_all(self._fd, content, self.bytes)
        self.bytes += len(content)

    def hand_over(self, filename: str) -> None:
        """Give it to the daemon; from the return of this call on it is not lost any more.

        Args:
            filename: what the client calls it.

        Raises:
            OSError: it cannot be handed over.
            StorageFailure: the disk did not confirm a write.
        """
        sync(self._fd)
        self._close()
        write_sidecar(self._path(_SIDECAR), filename)
        rename_noreplace(self._path(_PART), self._path(_IMAGE))
        sync_folder(self._folder)

    def discard(self) -> None:
        """Remove what has come in; an upload that was handed over stays."""
        self._close()
        with suppress(OSError):
            os.unlink(self._path(_PART))
            with suppress(FileNotFoundError):
                os.unlink(self._path(_SIDECAR))

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _path(self, ending: str) -> str:
        return os.path.join(self._folder, self.name + ending)


def write_sidecar(path: str, filename: str) -> None:
    """Write down what the client calls a file, whatever that may be."""
    fd = os.open(path, NEW_FILE, _MODE)
    try:
        write_all(fd, json.dumps({"filename": client_name(filename)}).encode("ascii"), 0)
        sync(fd)
    finally:
        os.close(fd)


def waiting_uploads(folder: str, batch: str) -> dict[str, str]:
    """The uploads of a batch that the daemon has not claimed: their file names, by upload."""
    names = _images(folder)
    return {name: _filename(folder, name) for name in names if name.startswith(f"{batch}-")}


# -- the daemon's side ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Leftover:
    """What is no image, as it was when it was first seen unchanged."""

    size: int
    mtime_ns: int
    since_s: float


class Uploads:
    """The uploads that wait for the daemon.

    Args:
        work: the work folder.
    """

    def __init__(self, work: str) -> None:
        self.folder = uploads_folder(work)
        self._offered: set[str] = set()
        self._leftovers: dict[str, _Leftover] = {}
        self._next_clean_s = float("-inf")

    def __len__(self) -> int:
        """Number of uploads that are known and not claimed."""
        return len(self._offered)

    def look(self, now_s: float) -> list[Arrival]:
        """Hand on the uploads that are new, in the order of their names; each is handed on once.

        Raises:
            Unavailable: the folder cannot be read.
        """
        try:
            with suppress(FileExistsError):
                os.mkdir(self.folder, 0o750)  # never the work folder: its share may be away
            names = _images(self.folder)
            if now_s >= self._next_clean_s:
                self._clean(now_s)
            new = sorted(names - self._offered)
            arrivals = [arrival for name in new if (arrival := self._arrival(name, now_s))]
        except OSError as error:
            raise _unavailable(f"The folder of uploads {self.folder} cannot be read", error) from (
                error
            )
        self._offered = names
        return arrivals

    def offer_again(self, names: Iterable[str]) -> None:
        """Hand these on once more: they could not be claimed."""
        self._offered.difference_update(names)

    def claim(self, name: str, target: str) -> bool:
        """Rename an upload into the work folder.

        Returns:
            False when it is not there any more.

        Raises:
            Unavailable: the rename failed and the upload still lies where it was.
        """
        try:
            rename_noreplace(self._path(name, _IMAGE), target, is_own_name=True)
        except FileNotFoundError:
            return os.path.lexists(target)
        except OSError as error:
            # A network file system may report a failure of a rename that was done.
            is_taken = error.errno == errno.EEXIST  # by another's file: ids of ours are new
            if not is_taken and os.path.lexists(target):
                return True
            raise _unavailable("An upload cannot be claimed", error) from error
        return True

    def sync_claims(self, names: Sequence[str]) -> None:
        """Make the renames of these uploads last through a power cut; then forget their names."""
        sync_folder(self.folder)
        for name in names:
            self._offered.discard(name)
            with suppress(FileNotFoundError):
                os.unlink(self._path(name, _SIDECAR))

    def waits(self, name: str) -> bool:
        """Whether an upload lies there with its image."""
        return os.path.lexists(self._path(name, _IMAGE))

    def put_back(self, source: str, name: str, filename: str) -> None:
        """Hand a file of ours over once more, for another try.

        Args:
            source: where it lies, on whatever file system.
            name: a new name for the upload.
            filename: what its client called it.

        Raises:
            FileNotFoundError: it is not there any more.
            Unavailable: it cannot be handed over, and lies where it was.
        """
        if has_vanished(source):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        try:
            with directory(self.folder) as folder:  # never made here: its share may be away
                write_sidecar(self._path(name, _SIDECAR), filename)
                move(source, name + _IMAGE, name + _PART, folder)
        except OSError as error:
            if has_vanished(source):
                raise FileNotFoundError(error.errno, error.strerror, source) from error
            what = f"It cannot be put back among the uploads in {self.folder}"
            raise _unavailable(what, error) from error

    def _arrival(self, name: str, now_s: float) -> Arrival | None:
        try:
            status = os.lstat(self._path(name, _IMAGE))
        except FileNotFoundError:
            return None
        path = f"{SOURCE}/{_filename(self.folder, name)}"
        file = SeenFile(path, status.st_size, status.st_mtime_ns, status.st_ino)
        return Arrival(file, now_s, now_s, upload=name)

    def _clean(self, now_s: float) -> None:
        """Remove what was left behind: parts, and names without an image."""
        self._next_clean_s = now_s + _CLEAN_EVERY_S
        before, self._leftovers = self._leftovers, {}
        for entry in list(os.scandir(self.folder)):
            if entry.name.endswith(_IMAGE) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                known = before.get(entry.name)
                if known is None or (known.size, known.mtime_ns) != (
                    status.st_size,
                    status.st_mtime_ns,
                ):
                    known = _Leftover(status.st_size, status.st_mtime_ns, now_s)
                if now_s - known.since_s >= STALE_S and not self._has_image(entry.name):
                    os.unlink(entry.path)
                else:
                    self._leftovers[entry.name] = known

    def _has_image(self, name: str) -> bool:
        return os.path.lexists(self._path(name.rpartition(".")[0], _IMAGE))

    def _path(self, name: str, ending: str) -> str:
        return os.path.join(self.folder, name + ending)


def _images(folder: str) -> set[str]:
    names = os.listdir(folder)
    return {name.removesuffix(_IMAGE) for name in names if name.endswith(_IMAGE)}


def _filename(folder: str, name: str) -> str:
    """What the client calls an upload; it is made safe again, for who knows who wrote it."""
    told = read_facts(os.path.join(folder, name + _SIDECAR)).get("filename")
    return client_name(told if isinstance(told, str) else "")


def _unavailable(what: str, error: OSError) -> Unavailable:
    return Unavailable("uploads", f"{what} ({os.strerror(error.errno or 0)}).")
