"""`xray-watcher fsck`: compares ledger, folders and logs, and names every difference.

Nothing is ever deleted; `--repair` writes reasons and logs again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from xray_watcher.config.settings import Settings
from xray_watcher.core.naming import parse_index, safe_name
from xray_watcher.errors import LedgerError, Unavailable
from xray_watcher.intake.claims import Move
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.work_folder import find_work_folder
from xray_watcher.ledger.log_files import LogFiles, edited_copies
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.restoring import logs_ahead
from xray_watcher.ledger.rows import ImageRow, LogState
from xray_watcher.service.folders import build_spool
from xray_watcher.system.files import OPEN_FILE, compute_sha256
from xray_watcher.system.lock import InstanceLock, is_held

_ADVICE = {
    "ledger": "restore it from a backup",
    "missing": "it was moved or deleted after it was filed; its record stays",
    "changed": "its bytes are not those that were filed; its record has the right hash",
    "unreadable": "nothing is known of it; it may be damaged, or may not be read by this user",
    "stranger": "the ledger does not know it; it was put there by somebody, or filed after the "
    "backup that the ledger was restored from",
    "reason": "--repair writes it again",
    "log": "--repair writes it anew from the ledger and keeps what is there beside it",
    "ahead": "it holds records that the ledger, an older copy, lacks; the service takes them back "
    "when it starts",
    "open": "the service takes it up when it starts",
    "leftover": "it is no claimed image and nobody touches it; see what it is and move it away",
}
"""What to do, by the kind of difference."""

_MORE_SCANS = 2
"""How often what differs beside a running service is compared again."""

_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the ledger has it; `reason` is what the system says of it."""

    kind: str
    what: str
    reason: str = ""

    def __str__(self) -> str:
        """One line for people: what differs, and what to do."""
        reason = f"{self.reason}; " if self.reason else ""
        return f"{self.kind}: {self.what} ({reason}{_ADVICE[self.kind]})"


def check(settings: Settings, *, deep: bool) -> list[Difference]:
    """Compare; nothing is changed.

    A running service changes ledger and folders during the scan. A difference counts then only if
    each of several scans finds it.

    Args:
        deep: read every filed image and compare its hash; otherwise its size.

    Raises:
        LedgerError: there is no ledger.
    """
    with LedgerReader.open(settings.folders.ledger) as ledger:
        spool = _spool(settings, ledger)
        ran = is_held(settings.folders.lock)
        found = list(_differences(settings, ledger, spool, lambda _shown: deep))
        ran = ran or is_held(settings.folders.lock)
        for _ in range(_MORE_SCANS if ran else 0):
            if found:
                time.sleep(_PAUSE_S)
                found = _confirm(settings, ledger, spool, found, deep=deep)
        return found


def _confirm(
    settings: Settings, ledger: LedgerReader, spool: Spool, found: list[Difference], *, deep: bool
) -> list[Difference]:
    """The differences that another scan finds too; only their files are read again."""
    read = {each.what for each in found if each.kind in ("changed", "unreadable")}
    again = set(_differences(settings, ledger, spool, lambda shown: deep and shown in read))
    return [difference for difference in found if difference in again]


def repair(settings: Settings, now: datetime) -> list[str]:
    """Write missing reasons and differing logs again from the ledger. Nothing is deleted.

    Args:
        now: names what is kept beside.

    Returns:
        What was done, one line each.

    Raises:
        AlreadyRunning: the service runs; it repairs its logs itself.
        LedgerError: there is no ledger.
        Unavailable: something cannot be written.
    """
    folders = settings.folders
    with LedgerReader.open(folders.ledger) as ledger, InstanceLock(folders.lock):
        return [
            *_repair_reasons(ledger, _spool(settings, ledger)),
            *_repair_logs(ledger, folders.logs, now),
        ]


def describe_log_copies(settings: Settings) -> str:
    """What there is to say of edited logs that were kept; empty when there are none."""
    with suppress(OSError):  # `check` has reported it
        if kept := edited_copies(settings.folders.logs):
            return (
                f"{len(kept)} edited logs are kept in {settings.folders.logs} as .conflict-TIME; "
                f"the oldest is {safe_name(os.path.basename(kept[0]))}. Nothing removes them: see "
                "what was edited, and delete them."
            )
    return ""


def _spool(settings: Settings, ledger: LedgerReader) -> Spool:
    return build_spool(settings, ledger.meta("work") or find_work_folder(settings.folders))


def _differences(
    settings: Settings, ledger: LedgerReader, spool: Spool, is_read: Callable[[str], bool]
) -> Iterator[Difference]:
    """One scan; `is_read` says of which filed images the hash is compared."""
    if not ledger.is_sound():
        yield Difference("ledger", settings.folders.ledger)
        return
    known: set[tuple[str, str]] = set()
    for row in ledger.filed_rows():
        folder, name = _filed_at(row)
        known.add((folder, name))
        yield from _compare_file(spool, row, is_read)
    is_running = is_held(settings.folders.lock)  # the service is about to finish them
    for row, difference in _unfinished(ledger):
        if row.folder is not None and row.filed_name is not None:
            known.add((row.folder, row.filed_name))
        if not is_running:
            yield difference
    yield from _find_unknown(spool, known)
    yield from _find_leftovers(spool)
    yield from _compare_logs(settings.folders.logs, ledger)


def _unfinished(ledger: LedgerReader) -> Iterator[tuple[ImageRow, Difference]]:
    for row in ledger.open_rows():
        yield row, Difference("open", f"image {row.id} is {row.state}")
    for row in ledger.removals_begun():
        yield row, Difference("open", f"index {row.idx} is being removed by retention")


def _compare_file(
    spool: Spool, row: ImageRow, is_read: Callable[[str], bool]
) -> Iterator[Difference]:
    folder, name = _filed_at(row)
    path = spool.results.target_path(folder, name)
    shown = f"{folder}/{safe_name(name)}"
    try:
        size = os.stat(path, follow_symlinks=False).st_size
        is_hashed = row.sha256 is not None and is_read(shown)  # one that nobody has read has none
        is_changed = size != row.size or (is_hashed and _hash(path) != row.sha256)
    except FileNotFoundError:  # perhaps only now: retention and `retry` go on
        yield Difference("missing", shown)
        return
    except OSError as error:
        yield _unreadable(shown, error)
        return
    if is_changed:
        yield Difference("changed", shown)
    if row.outcome == "rejected" and not os.path.lexists(f"{path}.json"):
        yield Difference("reason", f"{shown}.json")


def _find_unknown(spool: Spool, known: set[tuple[str, str]]) -> Iterator[Difference]:
    for folder in spool.results.folders:
        try:
            names = spool.results.names_in(folder)
        except OSError as error:
            yield _unreadable(f"{folder}/", error)
            continue
        for name in names:
            beside = name.removesuffix(".json")
            is_known = (folder, name) in known or (beside != name and (folder, beside) in known)
            if not is_known and not name.startswith(".tmp."):
                index = parse_index(name)
                shown = f"{folder}/{safe_name(name)}"
                yield Difference("stranger", shown if index is None else f"{shown} (index {index})")


def _find_leftovers(spool: Spool) -> Iterator[Difference]:
    try:
        names = spool.work.leftovers() if os.path.isdir(spool.work.path) else []
    except Unavailable as error:
        yield Difference("unreadable", spool.work.path, error.reason)
        return
    yield from (Difference("leftover", os.path.join(spool.work.path, name)) for name in names)


def _compare_logs(folder: str, ledger: LedgerReader) -> Iterator[Difference]:
    try:
        ahead = logs_ahead(ledger, folder)
    except OSError as error:
        yield _unreadable(folder, error)
        return
    logs = LogFiles(folder, ledger)
    for state in ledger.log_states():
        if state.name not in ahead:
            yield from _compare_log(logs, state)
    yield from (Difference("ahead", name) for name in ahead)


def _compare_log(logs: LogFiles, state: LogState) -> Iterator[Difference]:
    try:
        yield from (Difference("log", f"{state.name}.{form}") for form in logs.differing(state))
    except OSError as error:
        yield _unreadable(state.name, error)


def _unreadable(what: str, error: OSError) -> Difference:
    return Difference("unreadable", what, os.strerror(error.errno or 0))


def _repair_reasons(ledger: LedgerReader, spool: Spool) -> Iterator[str]:
    for row in ledger.filed_rows():
        folder, name = _filed_at(row)
        path = spool.results.target_path(folder, name)
        if row.outcome != "rejected" or os.path.lexists(f"{path}.json") or row.idx is None:
            continue
        if os.path.lexists(path):
            move = Move(row.id, folder, name, row.sha256 or b"")
            spool.results.write_beside(move, ledger.record_of(row.idx).jsonl)
            yield f"reason: written again beside index {row.idx}"


def _repair_logs(ledger: LedgerReader, folder: str, now: datetime) -> Iterator[str]:
    logs, ahead = LogFiles(folder, ledger), logs_ahead(ledger, folder)
    for state in ledger.log_states():
        if state.name in ahead:
            yield f"log: {state.name} is left: it holds more than the ledger; start the service"
            continue
        try:
            differing = logs.differing(state)
            kept = [conflict.path for conflict in logs.repair(state, now)]
        except OSError as error:
            yield f"log: {state.name} cannot be written anew ({os.strerror(error.errno or 0)})"
            continue
        for form in differing:
            yield f"log: {state.name}.{form} is written anew"
        for path in kept:
            yield f"log: what was there is kept as {path}"


def _filed_at(row: ImageRow) -> tuple[str, str]:
    if row.folder is None or row.filed_name is None:
        raise LedgerError(f"The ledger does not say where image {row.id} lies.")
    return row.folder, row.filed_name


def _hash(path: str) -> bytes:
    fd = os.open(path, OPEN_FILE)
    try:
        return compute_sha256(fd)
    finally:
        os.close(fd)
