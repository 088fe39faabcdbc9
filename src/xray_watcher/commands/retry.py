"""`xray-watcher retry`: hands rejected files over to the daemon once more.

It only moves files into the folder of uploads (`intake/handover.py`). The daemon, running or at its
next start, takes them from there. Their new records have the names and the source that the old ones
had, and say what they are a retry of (`retry_of`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from xray_watcher.config.settings import Settings
from xray_watcher.core.naming import parse_index
from xray_watcher.core.times import utc_text
from xray_watcher.core.values import REJECTED_FOLDER
from xray_watcher.errors import Unavailable, UsageError
from xray_watcher.intake.filing import UNREAD
from xray_watcher.intake.returned import Returned
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.work_folder import find_work_folder
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import ImageRow
from xray_watcher.service.folders import build_spool
from xray_watcher.system.files import directory
from xray_watcher.system.signals import wake_from_outside

_GONE = "It does not lie in the rejected folder any more."


@dataclass(frozen=True, slots=True)
class RetryOutcome:
    """What became of one rejected file.

    Attributes:
        name: in the rejected folder.
        inbox_path: the path below the inbox that its new record will have, as its old one has;
            None when it was not put back.
        problem: a sentence that says why not; None when it was.
    """

    name: str
    inbox_path: str | None = None
    problem: str | None = None


def put_back(
    settings: Settings, names: Sequence[str], now: datetime, *, every: bool
) -> list[RetryOutcome]:
    """Hand rejected files over to be tried again.

    Args:
        names: names of files in the rejected folder, or their indexes.
        now: the time, aware; noted beside each file.
        every: all that lie there, instead of `names`.

    Returns:
        What became of each file, one that cannot be put back among them. Of all that lie there
        those are left out that were taken away, or are on their way back already.

    Raises:
        UsageError: a name is not that of a rejected file; nothing was moved.
        LedgerError: there is no ledger.
        StorageFailure: the disk did not confirm a write.
    """
    with LedgerReader.open(settings.folders.ledger) as ledger:
        rejected = [row for row in ledger.rejections() if row.folder in (REJECTED_FOLDER, UNREAD)]
        rows = rejected if every else [_named(ledger, name) for name in names]
        spool = build_spool(settings, ledger.meta("work") or find_work_folder(settings.folders))
    try:
        with _alone(settings.folders.state):
            outcomes = [_outcome(spool, row, utc_text(now)) for row in rows]
    finally:
        wake_from_outside(settings.folders.waker)  # for those that are back when another fails
    return [outcome for outcome in outcomes if not every or outcome.problem != _GONE]


@contextmanager
def _alone(state: str) -> Iterator[None]:
    """Keep other calls waiting: across file systems a file has two places for a moment."""
    with directory(state) as fd:
        with suppress(OSError):  # some shares lock no folder
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def _outcome(spool: Spool, row: ImageRow, now: str) -> RetryOutcome:
    assert row.idx is not None
    assert row.folder is not None
    assert row.filed_name is not None
    try:
        spool.put_back(Returned(row.idx, row.path, row.folder, row.filed_name, now))
    except FileNotFoundError:
        return RetryOutcome(row.filed_name, problem=_GONE)
    except Unavailable as error:
        return RetryOutcome(row.filed_name, problem=error.reason)
    return RetryOutcome(row.filed_name, row.inbox_path)


def _named(ledger: LedgerReader, name: str) -> ImageRow:
    base = os.path.basename(name)
    index = parse_index(f"{base:0>4}_") if base.isdecimal() else parse_index(base)
    row = None if index is None else ledger.image_with_index(index)
    if row is None or row.outcome != "rejected" or row.filed_name is None:
        raise UsageError(
            f"{name!a} is not a rejected file. Give its name in the rejected folder, "
            "such as 0007_name.jpg, or its index."
        )
    return row
