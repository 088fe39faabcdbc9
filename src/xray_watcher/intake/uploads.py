"""The second door: whole files that the web or `retry` hands to the daemon, by one rename each.

In the folder `uploads` of the work folder, on the inbox's own file system, lie for one upload

    NAME.part    while it comes in: the web writes it, under a name that it has made itself
    NAME.json    what the client calls the file; written before the image is handed over
    NAME.image   the whole image, its bytes on disk: from here on the daemon answers for it

The daemon claims an image as it claims a file of the inbox, row first, then one rename, and
needs no settle time for it. It removes the small file after that. What the web leaves behind
when it is killed is no image: its client has had no answer. It is removed when it has not
changed for an hour.

A rejected file that `retry` puts back is NAME = `retry-INDEX`, a name that the web never makes.
Its NAME.json says where in the inbox it came from, and where it lay: as long as it still lies there
too, `retry` is about to remove it, or was killed before it could, and the daemon leaves it alone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from xray_watcher.core.naming import client_name
from xray_watcher.core.retries import Reason
from xray_watcher.core.values import Arrival, SeenFile
from xray_watcher.errors import Unavailable
from xray_watcher.intake.claims import ClaimUnclear, FileTrouble
from xray_watcher.intake.returned import Returned, index_of_retry
from xray_watcher.system.files import (
    NEW_FILE,
    OPEN_FILE,
    directory,
    flush,
    move,
    needed_facts,
    probe,
    read_facts,
    remove,
    rename_noreplace,
    sha256_of,
    sync,
    sync_folder,
    write_all,
    write_whole,
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
            remove(self._path(_SIDECAR))

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
    return {
        name: _filename(read_facts(os.path.join(folder, name + _SIDECAR)))
        for name in names
        if name.startswith(f"{batch}-")
    }


# -- the daemon's side ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Leftover:
    """What is no image, as it was when it was first seen unchanged."""

    size: int
    mtime_ns: int
    since_s: float


@dataclass(frozen=True, slots=True)
class UploadsLook:
    """What one look at the uploads found: those that are new, and those that cannot be seen."""

    arrivals: Sequence[Arrival]
    troubles: Mapping[str, Reason]


class Uploads:
    """The uploads that wait for the daemon.

    Args:
        work: the work folder.
        still_lies: tells whether a rejected file lies in a target folder: by the folder's key and
            the file's name there.
    """

    def __init__(
        self, work: str, still_lies: Callable[[str, str], bool] = lambda _folder, _name: False
    ) -> None:
        self.folder = uploads_folder(work)
        self._still_lies = still_lies
        self._offered: set[str] = set()
        self._first_seen_s: dict[str, float] = {}
        self._claimed: set[str] = set()  # whose small files are still to be removed
        self._leftovers: dict[str, _Leftover] = {}
        self._next_clean_s = float("-inf")

    def __len__(self) -> int:
        """Number of uploads that are known and not claimed."""
        return len(self._offered)

    @property
    def names(self) -> AbstractSet[str]:
        """Names of the uploads that are known and not claimed."""
        return self._offered

    @property
    def first_seen_s(self) -> Collection[float]:
        """When each of those was first seen."""
        return self._first_seen_s.values()

    def look(self, now_s: float, nameless: Collection[str] = ()) -> UploadsLook:
        """Hand on the uploads that are new, in the order of their names; each is handed on once.

        Args:
            now_s: on the monotonic clock.
            nameless: uploads that are taken without what their clients call them, for that could
                not be read for too long.

        Raises:
            Unavailable: the folder cannot be read.
        """
        try:
            with suppress(FileExistsError):
                os.mkdir(self.folder, 0o750)  # never the work folder: its share may be away
            names = _images(self.folder)
            self.forget_claimed()
            if now_s >= self._next_clean_s:
                self._clean(now_s)
        except OSError as error:
            raise _unavailable(f"The folder of uploads {self.folder} cannot be read", error) from (
                error
            )
        arrivals, troubles = [], {}
        for name in sorted(names - self._offered):
            try:
                arrival = self._arrival(name, now_s, is_nameless=name in nameless)
                arrivals += [] if arrival is None else [arrival]
            except OSError as error:
                troubles[name] = Reason("unreadable", os.strerror(error.errno or 0))
        offered = {str(arrival.upload) for arrival in arrivals}
        self._offered = self._offered & names | offered | troubles.keys()
        seen_s = self._first_seen_s
        self._first_seen_s = {name: seen_s.get(name, now_s) for name in self._offered}
        return UploadsLook(arrivals, troubles)

    def offer_again(self, names: Iterable[str]) -> None:
        """Hand these on once more: they could not be claimed."""
        self._offered.difference_update(names)

    def claim(self, name: str, target: str) -> bool:
        """Rename an upload into the work folder.

        Returns:
            False when it is not there any more.

        Raises:
            FileTrouble: this one cannot be moved; it still lies where it was.
            ClaimUnclear: the rename failed, and it cannot be seen whether it was done all the same.
            Unavailable: nothing can be moved there.
        """
        try:
            rename_noreplace(self._path(name, _IMAGE), target, is_own_name=True)
        except OSError as error:
            # A network file system may report a failure of a rename that was done.
            is_taken = error.errno == errno.EEXIST  # by another's file: ids of ours are new
            if not is_taken and _is_claimed(target):
                return True
            if isinstance(error, FileNotFoundError) and not self.waits(name):
                return False
            self._check_folders(os.path.dirname(target), error)
            raise FileTrouble("unmovable", os.strerror(error.errno or 0)) from error
        return True

    def _check_folders(self, work: str, error: OSError) -> None:
        """See that a failure is of one upload, and not of the folders.

        Raises:
            Unavailable: nothing can be written in one of them.
        """
        try:
            for folder in (work, self.folder):
                probe(folder)
        except OSError as refused:
            raise _unavailable("An upload cannot be claimed", refused) from error

    def sync_claims(self, names: Sequence[str]) -> None:
        """Make the renames of these uploads last through a power cut; then forget their names.

        Raises:
            Unavailable: the share of the inbox went away.
        """
        try:
            with directory(self.folder) as fd, suppress(OSError):
                flush(fd)  # else a power cut just then may bring an upload back
        except OSError as error:
            raise _unavailable("Claims of uploads cannot be confirmed", error) from error
        for name in names:
            self._offered.discard(name)
        self._claimed.update(names)
        self.forget_claimed()

    def forget_claimed(self) -> None:
        """Remove the small files of claimed uploads; one that stays is tried at the next look."""
        for name in list(self._claimed):
            with suppress(OSError):
                remove(self._path(name, _SIDECAR))
                self._claimed.discard(name)

    def waits(self, name: str) -> bool:
        """Whether an upload lies there with its image."""
        return os.path.lexists(self._path(name, _IMAGE))

    def put_back(self, source: str, returned: Returned) -> None:
        """Hand a rejected file over once more, for another try.

        Call it in one process at a time. Done again after a kill it goes on where it was.

        Args:
            source: where it lies, on whatever file system.
            returned: what the daemon is told of it.

        Raises:
            FileNotFoundError: it is not there any more.
            Unavailable: it cannot be handed over, and lies where it was.
        """
        if has_vanished(source):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        image, part = (self._path(returned.name, ending) for ending in (_IMAGE, _PART))
        try:
            if os.path.lexists(image):
                _remove_copied(source, image)
            else:  # the folder is never made here: its share may be away
                write_whole(self._path(returned.name, _SIDECAR), returned.to_json(), _MODE)
                sync_folder(self.folder)
                move(source, image, part)
            sync_folder(self.folder)
        except OSError as error:
            if has_vanished(source):
                raise FileNotFoundError(error.errno, error.strerror, source) from error
            what = f"It cannot be handed over in {self.folder}, which the service makes"
            raise _unavailable(what, error) from error

    def _arrival(self, name: str, now_s: float, *, is_nameless: bool) -> Arrival | None:
        try:
            status = os.lstat(self._path(name, _IMAGE))
        except FileNotFoundError:
            return None
        retry_of = index_of_retry(name)
        if retry_of is None:
            sidecar = self._path(name, _SIDECAR)
            path = f"{SOURCE}/{_filename({} if is_nameless else needed_facts(sidecar))}"
        else:
            returned = Returned.read(self._path(name, _SIDECAR), retry_of)
            if self._still_lies(returned.folder, returned.filed_name):
                return None
            path = os.fsdecode(returned.inbox_path)
        file = SeenFile(path, status.st_size, status.st_mtime_ns, status.st_ino)
        first_s = self._first_seen_s.setdefault(name, now_s)
        return Arrival(file, first_s, now_s, upload=name, retry_of=retry_of)

    def _clean(self, now_s: float) -> None:
        """Remove what was left behind: parts, and names without an image."""
        self._next_clean_s = now_s + _CLEAN_EVERY_S
        before, self._leftovers = self._leftovers, {}
        for entry in list(os.scandir(self.folder)):
            if entry.name.endswith(_IMAGE):
                continue
            with suppress(OSError):  # of one of them, which is left where it lies
                if not entry.is_file(follow_symlinks=False):
                    continue
                status = entry.stat(follow_symlinks=False)
                known = before.get(entry.name)
                if known is None or (known.size, known.mtime_ns) != (
                    status.st_size,
                    status.st_mtime_ns,
                ):
                    known = _Leftover(status.st_size, status.st_mtime_ns, now_s)
                if now_s - known.since_s >= STALE_S and not self._is_awaited(entry.name):
                    os.unlink(entry.path)
                else:
                    self._leftovers[entry.name] = known

    def _is_awaited(self, entry: str) -> bool:
        """Whether an image lies beside a file, or is still being copied there by `retry`."""
        name, _, ending = entry.rpartition(".")
        beside = (_IMAGE, _PART) if f".{ending}" == _SIDECAR else (_IMAGE,)
        return any(os.path.lexists(self._path(name, each)) for each in beside)

    def _path(self, name: str, ending: str) -> str:
        return os.path.join(self.folder, name + ending)


def _is_claimed(target: str) -> bool:
    try:
        os.lstat(target)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ClaimUnclear(os.strerror(error.errno or 0)) from error
    return True


def _images(folder: str) -> set[str]:
    names = os.listdir(folder)
    return {name.removesuffix(_IMAGE) for name in names if name.endswith(_IMAGE)}


def _filename(facts: Mapping[str, Any]) -> str:
    """What the client calls an upload; it is made safe again, for who knows who wrote it."""
    told = facts.get("filename")
    return client_name(told if isinstance(told, str) else "")


def _remove_copied(source: str, image: str) -> None:
    """Remove a file whose copy an earlier try, killed before this, has handed over whole."""
    if _sha256(source) != _sha256(image):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), image)
    os.unlink(source)


def _sha256(path: str) -> bytes:
    with open(os.open(path, OPEN_FILE), "rb") as file:
        return sha256_of(file.fileno())


def _unavailable(what: str, error: OSError) -> Unavailable:
    return Unavailable("uploads", f"{what} ({os.strerror(error.errno or 0)}).")
