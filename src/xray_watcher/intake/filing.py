"""Files claimed images in the folders of results; done again after a kill it finds what is done.

Filing is one rename into the target folder, or, across file systems, copy, fsync, hash, rename,
unlink. Nothing is ever overwritten. A file that cannot be moved costs itself alone: after each
failure the folders are tried, and only when they refuse too it is theirs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import structlog

from xray_watcher.core.naming import is_plain
from xray_watcher.errors import Unavailable
from xray_watcher.intake.claims import (
    ChangedAfterClaim,
    Move,
    NameRefused,
    Signature,
    TargetTaken,
)
from xray_watcher.intake.hashes import check_filed, has_hash
from xray_watcher.intake.refusals import (
    NO_ROOM,
    REFUSING,
    file_problem,
    kernel_reason,
    make_signature,
    unavailable,
)
from xray_watcher.intake.work_folder import WorkFolder
from xray_watcher.intake.work_names import work_name
from xray_watcher.system.advice import refusal
from xray_watcher.system.files import (
    copy,
    names_in,
    probe,
    remove,
    rename_noreplace,
    sync_folder,
    write_whole,
)
from xray_watcher.system.mounts import GuardedFolder, has_vanished, is_same_mount, longest_name

UNREAD = "unread"
"""Key of the folder of rejected files that nobody reads, beside the claimed ones. They are moved
there where the rejected ones lie on another file system, to which they would have to be copied."""

_log = structlog.get_logger()


class ResultFolders:
    """The folders that images are filed in.

    Args:
        work: the claimed files.
        targets: path of each folder, by its key.
        root: paths below it are shown relative to it.
        beat: is called now and then while a large file is copied or read.
    """

    def __init__(
        self, work: WorkFolder, targets: Mapping[str, str], root: str, beat: Callable[[], None]
    ) -> None:
        self._work = work
        self._targets = {**targets, UNREAD: os.path.join(work.path, UNREAD)}
        self._root = root
        self._beat = beat
        self._places: dict[str, GuardedFolder] = {}  # of the targets, by their keys
        self._left: dict[int, Signature] = {}  # filed images that are in the work folder too

    def make_targets(self) -> None:
        """Make the folders that images are filed in where they are missing, and try each.

        Raises:
            Unavailable: a folder cannot be made or written; the message names it.
        """
        for key, folder in self._targets.items():
            if key != UNREAD:
                make_usable(folder)
                self._places[key] = GuardedFolder(folder)

    def keep_targets(self) -> None:
        """Make the folders anew that somebody has tidied away.

        Raises:
            Unavailable: one cannot be made, or its share is away.
        """
        for place in self._places.values():
            try:
                place.keep()
            except OSError as error:
                what = f"The folder {place.folder} cannot be made"
                raise unavailable("folders", what, error) from error

    def taken(self, folder: str, name: str) -> bool:
        """Whether a name in a target folder is taken."""
        return os.path.lexists(self.target_path(folder, name))

    def longest_name(self, folder: str) -> int:
        """How many bytes a name in a target folder may have, as far as is known."""
        return longest_name(self._targets[folder])

    def target_path(self, folder: str, name: str) -> str:
        """Where an image with this name is filed."""
        return os.path.join(self._targets[folder], name)

    @property
    def folders(self) -> Collection[str]:
        """The keys of the target folders."""
        return self._targets.keys()

    def names_in(self, folder: str) -> list[str]:
        """Every name in a target folder; none when there is no such folder.

        Raises:
            OSError: it cannot be listed.
        """
        return sorted(names_in(self._targets[folder]))

    def shown_path(self, folder: str, name: str) -> str:
        """The path of a filed image as records show it: relative where it lies below the root."""
        path = self.target_path(folder, name)
        relative = os.path.relpath(path, self._root)
        return path if relative.startswith("..") else relative

    def folder_unread(self, folder: str) -> str:
        """Where a rejected file goes that nobody reads: one rename away.

        Args:
            folder: key of the folder in which it belongs.
        """
        return folder if is_same_mount(self._work.path, self._targets[folder]) else UNREAD

    def file(self, move: Move) -> None:
        """File one image; done again after a kill it goes on where it was.

        Raises:
            FileNotFoundError: it is neither in the work folder nor in its target folder.
            TargetTaken: another file has the name.
            NameRefused: the file system does not take the name, but might take a plain one.
            ChangedAfterClaim: its bytes are not those that were decided upon.
            FileProblem: this file cannot be moved; it is still in the work folder alone.
            Unavailable: the target cannot be written; the file is still in the work folder.
        """
        source, target = (
            self._work.claimed_path(move.image_id),
            self.target_path(move.folder, move.name),
        )
        try:
            self._keep(move.folder)
            if self._has_left(source):
                self._check_filed(target, move)
            elif move.sha256 is None:
                self._rename(source, target, move)
            elif has_hash(target, move.sha256, self._beat):
                self._clear_copied(source, move)  # a copy across file systems was complete
            else:
                self._move(source, target, move)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._has_left(source):
                raise
            if error.errno in REFUSING and not is_plain(move.name):
                raise NameRefused(f"Image {move.image_id}: {kernel_reason(error)}.") from error
            self._raise_cause(error, source, target, move)

    def _keep(self, folder: str) -> None:
        if folder == UNREAD:
            with suppress(FileExistsError):  # never the work folder: its share may be away
                os.mkdir(self._targets[folder], 0o750)
        else:
            self._places[folder].keep()

    def _has_left(self, source: str) -> bool:
        """Whether a file is not in the work folder any more.

        Raises:
            OSError: it cannot be looked at, though its folder can.
            Unavailable: the work folder is out of reach.
        """
        try:
            os.lstat(source)
        except FileNotFoundError:
            return has_vanished(source)
        return False

    def _check_filed(self, target: str, move: Move) -> None:
        if move.sha256 is not None:
            check_filed(target, move.sha256, self._beat)
        else:
            os.lstat(target)

    def _raise_cause(self, error: OSError, source: str, target: str, move: Move) -> None:
        """Distinguish a file that cannot be moved from folders that are out of reach.

        One that lies in both places is filed: only its old name could not be removed.

        Raises:
            FileProblem: the file is to blame, and lies in the work folder alone.
            Unavailable: else; the same is tried again.
        """
        folder = os.path.dirname(target)
        what = f"An image cannot be filed in {folder}"
        if error.errno in NO_ROOM:
            raise unavailable("folders", what, error) from error
        try:
            probe(folder)
            self._work.check_reach()
            is_whole = _is_there(source) and not _is_there(target)
            if not is_whole and _is_there(source) and self._is_as_decided(target, move):
                return self._clear_copied(source, move)
        except OSError as refused:
            raise unavailable("folders", what, refused) from error
        if not is_whole:
            raise unavailable("folders", what, error) from error
        raise file_problem("unmovable", error) from error

    def _move(self, source: str, target: str, move: Move) -> None:
        if move.with_reason:
            with suppress(FileNotFoundError):
                os.lstat(target + ".json")  # if that is refused, better before the image lies there
        if make_signature(os.lstat(source)) != move.signature and not self._is_as_decided(
            source, move
        ):
            raise ChangedAfterClaim(f"Image {move.image_id} changed after it was decided.")
        try:
            self._rename(source, target, move)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._move_across(source, target, move)

    def _is_as_decided(self, path: str, move: Move) -> bool:
        return move.sha256 is not None and has_hash(path, move.sha256, self._beat)

    def _rename(self, source: str, target: str, move: Move) -> None:
        try:
            rename_noreplace(source, target)
        except FileExistsError as error:
            taken = f"Image {move.image_id}: another file has its name in {move.folder}."
            raise TargetTaken(taken) from error

    def _move_across(self, source: str, target: str, move: Move) -> None:
        """Copy beside the target, sync, check the hash, rename, and only then unlink."""
        part = os.path.join(os.path.dirname(target), f".tmp.{work_name(move.image_id)}")
        try:
            copy(source, part, beat=self._beat)
            is_sound = self._is_as_decided(part, move)
            if is_sound:
                self._rename(part, target, move)
        finally:
            with suppress(OSError):
                os.unlink(part)  # its new name may be in another folder
        if not is_sound:
            raise ChangedAfterClaim(f"Image {move.image_id} changed while it was filed.")
        sync_folder(os.path.dirname(target))
        self._clear_copied(source, move)

    def clear_left(self) -> None:
        """Try once more to remove what could not be removed when it was filed; costs no reading."""
        for image_id, signature in list(self._left.items()):
            path = self._work.claimed_path(image_id)
            with suppress(OSError):
                if _is_there(path) and make_signature(os.lstat(path)) == signature:
                    remove(path)
                del self._left[image_id]  # one that has changed since stays for the next start

    def _clear_copied(self, source: str, move: Move) -> None:
        """Remove a file whose copy is filed; if that cannot be, `clear_left` tries it again."""
        with suppress(OSError):  # one that cannot be read any more stays for the next start
            signature = make_signature(os.lstat(source))
            if self._is_as_decided(source, move):
                self._left[move.image_id] = signature
        self.clear_left()
        if os.path.lexists(source):
            _log.warning(
                "a filed image is left in the work folder too",
                code="filed_image_left",
                id=move.image_id,
            )

    def sync_filed(self, folders: Sequence[str]) -> None:
        """Make filed images last through a power cut.

        Raises:
            Unavailable: a folder went away.
        """
        try:
            for folder in sorted(set(folders)):
                sync_folder(self._targets[folder])
            sync_folder(self._work.path)
        except OSError as error:
            raise unavailable("storage", "Filed images cannot be confirmed", error) from error

    def may_lie(self, folder: str, name: str) -> bool:
        """Whether a file lies in a target folder, or may lie there."""
        try:
            return folder in self._targets and not has_vanished(self.target_path(folder, name))
        except Unavailable:
            return True

    def forget_reason(self, folder: str, name: str) -> None:
        """Remove `NAME.json` of a file that was put back: it stands in the ledger and the log.

        Raises:
            Unavailable: it cannot be removed.
        """
        try:
            remove(self.target_path(folder, name) + ".json")
        except OSError as error:
            what = "It is put back, but the reason beside it cannot be removed"
            raise unavailable("storage", what, error) from error

    def write_beside(self, move: Move, content: bytes) -> None:
        """Write `NAME.json` beside a filed image, whole or not at all.

        Raises:
            Unavailable: it cannot be written.
        """
        path = self.target_path(move.folder, move.name) + ".json"
        try:
            write_whole(path, content)
        except OSError as error:
            folder = os.path.dirname(path)
            try:
                if error.errno in NO_ROOM:
                    raise
                probe(folder)
            except OSError as refused:
                what = f"A reason cannot be written in {folder}"
                raise unavailable("folders", what, refused) from error
            # It stands in the ledger and in the log too, and `fsck --repair` writes it again.
            _log.warning(
                "a reason cannot be written",
                code="reason_not_written",
                id=move.image_id,
                why=kernel_reason(error),
            )


def make_usable(folder: str) -> None:
    """Make a folder unless it is there; then create, rename, sync and remove a file in it."""
    try:
        os.makedirs(folder, exist_ok=True)
        probe(folder)
    except OSError as error:
        raise Unavailable(
            "folders", refusal(f"The folder {folder} cannot be used", error)
        ) from error


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True
