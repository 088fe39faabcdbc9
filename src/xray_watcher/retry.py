"""`xray-watcher retry`: puts rejected files back into the inbox, for another try.

It only moves files; the daemon, running or at its next start, takes them as it takes any
other and links the new record to the old one (`retry_of`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from xray_watcher.bootstrap import spool_of
from xray_watcher.config import Settings
from xray_watcher.core.naming import index_of
from xray_watcher.errors import UsageError
from xray_watcher.ledger_reader import ImageRow, LedgerReader
from xray_watcher.places import work_folder
from xray_watcher.sealing import REJECTED_FOLDER


def put_back(settings: Settings, names: Sequence[str], *, every: bool) -> list[tuple[str, str]]:
    """Put rejected files back into the inbox.

    Args:
        settings: what is in force.
        names: names of files in the rejected folder, or their indexes.
        every: all that lie there, instead of `names`.

    Returns:
        For each file its name in the rejected folder and its path below the inbox now.

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
            target = spool.put_back(row.folder, row.filed_name, row.inbox_path)
        except FileNotFoundError:
            if every:
                continue  # its file was taken away, or is on its way back already
            raise UsageError(
                f"{row.filed_name} does not lie in the rejected folder any more."
            ) from None
        moved.append((row.filed_name, target))
    return moved


def _all(ledger: LedgerReader) -> list[ImageRow]:
    return [row for row in ledger.rejections() if row.folder == REJECTED_FOLDER]


def _named(ledger: LedgerReader, name: str) -> ImageRow:
    base = os.path.basename(name)
    index = int(base) if base.isascii() and base.isdecimal() else index_of(base)
    row = None if index is None else ledger.image_with_index(index)
    if row is None or row.outcome != "rejected" or row.filed_name is None:
        raise UsageError(
            f"{name!a} is not a rejected file. Give its name in the rejected folder, "
            "such as 0007_name.jpg, or its index."
        )
    return row
