"""`xray-watcher retry`: puts rejected files back by the door that they came in by.

It only moves files; the daemon, running or at its next start, takes them as it takes any
other and links the new record to the old one (`retry_of`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from xray_watcher.bootstrap import spool_of
from xray_watcher.config.settings import Settings
from xray_watcher.core.naming import index_of
from xray_watcher.errors import Unavailable, UsageError
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.uploads import new_batch, upload_name
from xray_watcher.ledger.reader import ImageRow, LedgerReader
from xray_watcher.places import work_folder
from xray_watcher.sealing import REJECTED_FOLDER
from xray_watcher.system.signals import ring_from_outside

_GONE = "It does not lie in the rejected folder any more."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rejected file.

    Attributes:
        name: in the rejected folder.
        target: its path below the inbox now; an upload has no such path, but the folder `web`
            stands for its door. None when it was not put back.
        trouble: a sentence that says why not; None when it was.
    """

    name: str
    target: str | None = None
    trouble: str | None = None


def put_back(
    settings: Settings, names: Sequence[str], now: datetime, *, every: bool
) -> list[Outcome]:
    """Put rejected files back into the inbox, or among the uploads.

    Args:
        settings: what is in force.
        names: names of files in the rejected folder, or their indexes.
        now: the time, aware.
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
        rows = _all(ledger) if every else [_named(ledger, name) for name in names]
        spool = spool_of(settings, ledger.meta("work") or work_folder(settings.folders))
    try:
        outcomes = [_outcome(spool, row, now) for row in rows]
    finally:
        ring_from_outside(settings.folders.bell)  # for those that are back when another fails
    return [outcome for outcome in outcomes if not every or outcome.trouble != _GONE]


def _outcome(spool: Spool, row: ImageRow, now: datetime) -> Outcome:
    assert row.folder is not None
    assert row.filed_name is not None
    try:
        target = _put_back(spool, row, row.folder, row.filed_name, now)
    except FileNotFoundError:
        return Outcome(row.filed_name, trouble=_GONE)
    except Unavailable as error:
        return Outcome(row.filed_name, trouble=error.detail)
    return Outcome(row.filed_name, target)


def _put_back(spool: Spool, row: ImageRow, folder: str, name: str, now: datetime) -> str:
    if row.upload is None:
        return spool.put_back(folder, name, row.inbox_path)
    upload = upload_name(new_batch(now), 0)
    spool.uploads.put_back(spool.target_path(folder, name), upload, row.inbox_path)
    spool.forget_reason(folder, name)
    return row.inbox_path


def _all(ledger: LedgerReader) -> list[ImageRow]:
    return [row for row in ledger.rejections() if row.folder == REJECTED_FOLDER]


def _named(ledger: LedgerReader, name: str) -> ImageRow:
    base = os.path.basename(name)
    index = index_of(f"{base:0>4}_") if base.isdecimal() else index_of(base)
    row = None if index is None else ledger.image_with_index(index)
    if row is None or row.outcome != "rejected" or row.filed_name is None:
        raise UsageError(
            f"{name!a} is not a rejected file. Give its name in the rejected folder, "
            "such as 0007_name.jpg, or its index."
        )
    return row
