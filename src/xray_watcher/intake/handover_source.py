"""What is handed over as a source: whole files that our own programs put beside the claimed ones.

`handover.py` says which files lie there, and who writes them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass

from xray_watcher.core.retries import Reason
from xray_watcher.core.values import HANDOVER, Arrival, Origin, SeenFile
from xray_watcher.intake.claims import FileProblem
from xray_watcher.intake.handover import (
    FILE_MODE,
    IMAGE,
    PART,
    SIDECAR,
    WEB,
    filename_in,
    images_in,
    source_in,
    uploads_folder,
)
from xray_watcher.intake.refusals import kernel_reason, unavailable
from xray_watcher.intake.returned import Returned, parse_retry_index
from xray_watcher.intake.work_folder import WorkFolder
from xray_watcher.system.files import (
    OPEN_FILE,
    compute_sha256,
    directory,
    flush,
    load_facts,
    move,
    probe,
    remove,
    rename_noreplace,
    sync_folder,
    write_whole,
)
from xray_watcher.system.mounts import has_vanished

STALE_S = 3600.0
"""What is no image and has not changed for this long was left behind."""

_CLEAN_EVERY_S = 600.0


_State = tuple[int, int]  # size and time of the last change


@dataclass(frozen=True, slots=True)
class HandoverScan:
    """What one look found: files that are new, and those that cannot be read now."""

    arrivals: Sequence[Arrival]
    problems: Mapping[str, Reason]


class HandoverSource:
    """What was handed over and waits for the daemon; known here by its name.

    Args:
        work: the claimed files.
        still_lies: whether a rejected file lies in a target folder, by the folder's key and the
            file's name.
    """

    name = HANDOVER

    def __init__(self, work: WorkFolder, still_lies: Callable[[str, str], bool]) -> None:
        self.folder = uploads_folder(work.path)
        self._work = work
        self._still_lies = still_lies
        self._offered: set[str] = set()
        self._first_seen_s: dict[str, float] = {}
        self._claimed: set[str] = set()  # whose side-cars are still to be removed
        self._leftovers: dict[str, tuple[_State, float]] = {}  # no images; unchanged since when
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

    def look(self, now_s: float, nameless: Collection[str] = ()) -> HandoverScan:
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
            names = images_in(self.folder)
            self.forget_claimed()
            if now_s >= self._next_clean_s:
                self._clean(now_s)
        except OSError as error:
            what = f"The folder of uploads {self.folder} cannot be read"
            raise unavailable("uploads", what, error) from error
        arrivals, problems = [], {}
        for name in sorted(names - self._offered):
            try:
                arrival = self._arrival(name, now_s, is_nameless=name in nameless)
                arrivals += [] if arrival is None else [arrival]
            except OSError as error:
                problems[name] = Reason("unreadable", kernel_reason(error))
        offered = {arrival.origin.key for arrival in arrivals}
        self._offered = self._offered & names | offered | problems.keys()
        seen_s = self._first_seen_s
        self._first_seen_s = {name: seen_s.get(name, now_s) for name in self._offered}
        return HandoverScan(arrivals, problems)

    def offer_again(self, names: Iterable[str]) -> None:
        """Hand these on once more: they could not be claimed."""
        self._offered.difference_update(names)

    def claim(self, key: str, image_id: int) -> bool:
        """Rename a file into the work folder; see `Source`."""
        try:
            target = self._work.claimed_path(image_id)
            rename_noreplace(self._path(key, IMAGE), target, is_own_name=True)
        except OSError as error:
            # A network file system may report a failure of a rename that was done.
            is_taken = error.errno == errno.EEXIST  # by another's file: ids of ours are new
            if not is_taken and self._work.is_claimed(image_id):
                return True
            if isinstance(error, FileNotFoundError) and not self.is_still_there(key):
                return False
            self._check_folders(error)
            raise FileProblem("unmovable", kernel_reason(error)) from error
        return True

    def _check_folders(self, error: OSError) -> None:
        """See that a failure is of one file, and not of the folders.

        Raises:
            Unavailable: nothing can be written in one of them.
        """
        try:
            for folder in (self._work.path, self.folder):
                probe(folder)
        except OSError as refused:
            raise unavailable("uploads", "An upload cannot be claimed", refused) from error

    def is_still_there(self, key: str) -> bool:
        """Whether a file lies here with its image."""
        return os.path.lexists(self._path(key, IMAGE))

    def sync(self, keys: Sequence[str]) -> None:
        """Flush the folder; then forget these names; see `Source`."""
        try:
            with directory(self.folder) as fd, suppress(OSError):
                flush(fd)  # else a power cut just then may bring an upload back
        except OSError as error:
            what = "Claims of uploads cannot be confirmed"
            raise unavailable("uploads", what, error) from error
        self._offered.difference_update(keys)
        self._claimed.update(keys)
        self.forget_claimed()

    def forget_claimed(self) -> None:
        """Remove the side-cars of claimed files; one that stays is tried at the next look."""
        for name in list(self._claimed):
            with suppress(OSError):
                remove(self._path(name, SIDECAR))
                self._claimed.discard(name)

    def put_back(self, source: str, returned: Returned) -> None:
        """Hand a rejected file over once more, for another try.

        Call it in one process at a time. Done again after a kill it goes on where it was.

        Args:
            source: where it lies, on whatever file system.
            returned: what its side-car says.

        Raises:
            FileNotFoundError: it is not there any more.
            Unavailable: it cannot be handed over, and lies where it was.
        """
        if has_vanished(source):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        image, part = (self._path(returned.name, ending) for ending in (IMAGE, PART))
        try:
            if os.path.lexists(image):
                _remove_copied(source, image)
            else:  # the folder is never made here: its share may be away
                write_whole(self._path(returned.name, SIDECAR), returned.to_json(), FILE_MODE)
                sync_folder(self.folder)
                move(source, image, part)
            sync_folder(self.folder)
        except OSError as error:
            if has_vanished(source):
                raise FileNotFoundError(error.errno, error.strerror, source) from error
            what = f"It cannot be handed over in {self.folder}, which the service makes"
            raise unavailable("uploads", what, error) from error

    def _arrival(self, name: str, now_s: float, *, is_nameless: bool) -> Arrival | None:
        try:
            status = os.lstat(self._path(name, IMAGE))
        except FileNotFoundError:
            return None
        path, source, retry_of = "", "", parse_retry_index(name)
        if retry_of is None:
            facts = {} if is_nameless else load_facts(self._path(name, SIDECAR))
            source = source_in(facts)
            path = f"{source}/{filename_in(facts)}"
        else:
            returned = Returned.read(self._path(name, SIDECAR), retry_of)
            if self._still_lies(returned.folder, returned.filed_name):
                return None
            path = os.fsdecode(returned.inbox_path)
        return Arrival(
            SeenFile(path, status.st_size, status.st_mtime_ns, status.st_ino),
            self._first_seen_s.setdefault(name, now_s),
            now_s,
            Origin(self.name, name),
            is_awaited=source == WEB,
            retry_of=retry_of,
        )

    def _clean(self, now_s: float) -> None:
        """Remove what was left behind: parts, and names without an image."""
        self._next_clean_s = now_s + _CLEAN_EVERY_S
        before, self._leftovers = self._leftovers, {}
        for entry in list(os.scandir(self.folder)):
            if entry.name.endswith(IMAGE):
                continue
            with suppress(OSError):  # of one of them, which is left where it lies
                if not entry.is_file(follow_symlinks=False):
                    continue
                status = entry.stat(follow_symlinks=False)
                state = (status.st_size, status.st_mtime_ns)
                known, since_s = before.get(entry.name, (state, now_s))
                since_s = since_s if known == state else now_s
                if now_s - since_s >= STALE_S and not self._is_awaited(entry.name):
                    os.unlink(entry.path)
                else:
                    self._leftovers[entry.name] = (state, since_s)

    def _is_awaited(self, entry: str) -> bool:
        """Whether an image lies beside a file, or is still being copied there by `retry`."""
        name, _, ending = entry.rpartition(".")
        beside = (IMAGE, PART) if f".{ending}" == SIDECAR else (IMAGE,)
        return any(os.path.lexists(self._path(name, each)) for each in beside)

    def _path(self, name: str, ending: str) -> str:
        return os.path.join(self.folder, name + ending)


def _remove_copied(source: str, image: str) -> None:
    """Remove a file whose copy an earlier try, killed before this, has handed over whole."""
    if _sha256(source) != _sha256(image):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), image)
    os.unlink(source)


def _sha256(path: str) -> bytes:
    with open(os.open(path, OPEN_FILE), "rb") as file:
        return compute_sha256(file.fileno())
