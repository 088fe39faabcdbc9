"""The folders at the start: they are made, or are those of an earlier start."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import structlog

from xray_watcher.config.folders import Folders
from xray_watcher.config.settings import Settings
from xray_watcher.core.values import DUPLICATES_FOLDER, LEVELS, REJECTED_FOLDER
from xray_watcher.errors import ConfigError, Unavailable
from xray_watcher.intake.handover import images_in, uploads_folder
from xray_watcher.intake.sources import row_origin
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.watcher import Inbox, build_inbox
from xray_watcher.intake.work_folder import find_work_folder
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.restoring import take_back
from xray_watcher.ledger.rows import ImageRow
from xray_watcher.ledger.states import State
from xray_watcher.ledger.used_indexes import highest_index
from xray_watcher.system.advice import refusal
from xray_watcher.system.files import keep_to_owner
from xray_watcher.system.mounts import is_same_mount

_FOLDER_MODE = 0o750
_RUN_ONCE_MORE = (
    "run once more with that inbox (`xray-watcher run --once --inbox ...`), then change it"
)

_log = structlog.get_logger()


def build_spool(settings: Settings, work: str, beat: Callable[[], None] = lambda: None) -> Spool:
    """The folders that images pass through, as the settings have them."""
    folders = settings.folders
    return Spool(folders.inbox, work, _targets(folders), folders.root, beat)


def _targets(folders: Folders) -> dict[str, str]:
    """Where images are filed, by the key of each folder."""
    return {
        **{level: os.path.join(folders.classified, level) for level in LEVELS},
        REJECTED_FOLDER: folders.rejected,
        DUPLICATES_FOLDER: folders.duplicates,
    }


def make_folder(folder: str, key: str) -> None:
    """Make a folder that a key names, unless it is there; not for everybody's eyes."""
    try:
        os.makedirs(folder, mode=_FOLDER_MODE, exist_ok=True)
    except OSError as error:
        what = f"The folder {folder} ({key}) cannot be made"
        raise Unavailable("folders", refusal(what, error)) from error


def prepare_folders(
    settings: Settings, ledger: Ledger, beat: Callable[[], None]
) -> tuple[Spool, Inbox]:
    """Make what is missing; but never an inbox that was there before, for its share is away.

    Raises:
        ConfigError: the inbox was changed while images or uploads of the old one are open.
        Unavailable: a folder cannot be made or written.
    """
    folders = settings.folders
    known_inbox, work = ledger.meta("inbox"), ledger.meta("work")
    if work is None or not _is_still_right(ledger, known_inbox, work, folders.inbox):
        work = _begin_inbox(settings, ledger, known_inbox, work)
    spool = build_spool(settings, work, beat)
    # In an inbox they inherit an ACL that lets a whole group write.
    for folder in (spool.work.path, spool.handover.folder):
        with suppress(OSError):  # the share is away
            keep_to_owner(folder)
    spool.results.make_targets()
    continue_behind_outputs(ledger, folders)
    make_folder(folders.logs, "intake.logs")
    return spool, build_inbox(settings, work)


def _is_still_right(ledger: Ledger, known_inbox: str | None, work: str, inbox: str) -> bool:
    """Whether the work folder of an earlier start belongs to the inbox.

    One on another mount of the same disk takes no file of the inbox. It is left when it is empty.
    """
    if known_inbox != inbox:
        return False
    try:
        return bool(ledger.open_rows() or _find_uploads(work)) or is_same_mount(inbox, work)
    except OSError:
        return True  # a share is away; it is waited for


def _find_uploads(work: str) -> set[str]:
    """The uploads in a work folder that are not claimed."""
    try:
        return images_in(uploads_folder(work))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _begin_inbox(
    settings: Settings, ledger: Ledger, known_inbox: str | None, known_work: str | None
) -> str:
    """Begin with an inbox that the ledger does not know: a new one, or the old one moved.

    Returns:
        The work folder.
    """
    folders = settings.folders
    open_rows = ledger.open_rows()
    if not os.path.isdir(folders.inbox):
        if open_rows:
            raise _other_inbox(len(open_rows), known_inbox)
        make_folder(folders.inbox, "intake.inbox")
    work = find_work_folder(folders)
    if known_work is not None and known_work != work:
        _check_uploads(known_work, known_inbox)
    spool = build_spool(settings, work)
    if not all(_lies_in(spool, row) for row in open_rows):
        raise _other_inbox(len(open_rows), known_inbox)
    spool.make_inbox()
    with ledger.transaction():
        ledger.set_meta("inbox", folders.inbox)
        ledger.set_meta("work", work)
    return work


def continue_behind_outputs(ledger: Ledger, folders: Folders) -> None:
    """Use no index twice, in whatever way an older ledger, or none, came to lie there."""
    take_back(ledger, folders.logs)
    highest = highest_index(folders.logs, _targets(folders).values())
    if highest >= ledger.next_index:
        _log.warning(
            "the ledger is older than its outputs", code="ledger_older", next_index=highest + 1
        )
        ledger.go_on_at(highest + 1)


def _lies_in(spool: Spool, row: ImageRow) -> bool:
    """Whether an open image lies where these folders would have it: they were moved with it."""
    if row.state == State.FILING and (row.folder is None or row.filed_name is None):
        return True  # it had vanished; its line alone is to be written
    with suppress(OSError):
        if os.path.getsize(spool.work.claimed_path(row.id)) == row.size:
            return True
    if row.state == State.FILING and row.folder is not None and row.filed_name is not None:
        return spool.results.taken(row.folder, row.filed_name)
    return row.state == State.CLAIMING and spool.is_still_there(row_origin(row))


def _check_uploads(work: str, inbox: str | None) -> None:
    """See that no upload would be left behind in the work folder of another inbox.

    Raises:
        ConfigError: some wait there.
        Unavailable: that cannot be seen.
    """
    try:
        count = len(_find_uploads(work))
    except OSError as error:
        what = f"Uploads may wait in {work}, the work folder of the inbox {inbox}"
        raise Unavailable("inbox", refusal(what, error)) from error
    if count:
        problem = (
            f"intake.inbox: {count} uploads that are not claimed wait in {work}, the work folder "
            f"of the inbox {inbox}: {_RUN_ONCE_MORE}"
        )
        raise ConfigError([problem])


def _other_inbox(open_images: int, known_inbox: str | None) -> ConfigError:
    problem = (
        f"intake.inbox: the ledger has {open_images} open images of the inbox {known_inbox}, and "
        "not all of them lie in the new folders. Move its work folder along with the inbox. Or "
        f"{_RUN_ONCE_MORE}"
    )
    return ConfigError([problem])
