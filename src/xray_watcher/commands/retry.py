"""`xray-watcher retry`: puts rejected files back by the door that they came in by.

It only moves files; the daemon, running or at its next start, takes them as it takes any
other and links the new record to the old one (`retry_of`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from xray_watcher.bootstrap import spool_of
from xray_watcher.config.settings import Settings
from xray_watcher.core.naming import index_of
from xray_watcher.errors import UsageError
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.uploads import new_batch, upload_name
from xray_watcher.ledger.reader import ImageRow, LedgerReader
from xray_watcher.places import work_folder
from xray_watcher.sealing import REJECTED_FOLDER
from xray_watcher.system.signals import ring_from_outside


def put_back(
    settings: Settings, names: Sequence[str], now: datetime, *, every: bool
) -> list[tuple[str, str]]:
    """Put rejected files back into the inbox, or among the uploads.

    Args:
        settings: what is in force.
        names: names of files in the rejected folder, or their indexes.
        now: the time, aware.
        every: all that lie there, instead of `names`.

    Returns:
        For each file its name in the rejected folder and its path below the inbox now; an upload
        has no such path, but the folder `web` stands for its door.

    Raises:
        UsageError: a name is not that of a rejected file; nothing was moved.
        LedgerError: there is no ledger.
    """
    with LedgerReader.open(settings.folders.ledger) as ledger:
        rows = _all(ledger) if every else [_named(ledger, name) for name in names]
        spool = spool_of(settings, ledger.meta("work") or work_folder(settings.folders))
    moved = []
    for row in rows:
        assert row.folder is not None
        assert row.filed_name is not None
        try:
            target = _put_back(spool, row, row.folder, row.filed_name, now)
        except FileNotFoundError:
            if every:
                continue  # its file was taken away, or is on its way back already
            raise UsageError(
                f"{row.filed_name} does not lie in the rejected folder any more."
            ) from None
        moved.append((row.filed_name, target))
    ring_from_outside(settings.folders.bell)
    return moved


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
