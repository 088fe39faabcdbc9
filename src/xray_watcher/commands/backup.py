"""`xray-watcher backup`: a consistent copy of the ledger while the service runs."""

from __future__ import annotations

import os
from contextlib import suppress

from xray_watcher.errors import UsageError
from xray_watcher.ledger.connection import CopyFailed
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.system.files import NEW_FILE, remove, rename_noreplace, sync_folder

_MODE = 0o640


def backup(ledger_path: str, target: str) -> int:
    """Copy the ledger.

    Args:
        ledger_path: the service's ledger.
        target: a file that must not exist.

    Returns:
        How many images have an index in it.

    Raises:
        UsageError: the target exists or cannot be written.
        LedgerError: there is no ledger.
    """
    part = f"{target}.part"
    try:
        with LedgerReader.open(ledger_path) as ledger:
            remove(part)  # what a kill left; a link there leads to somebody's file
            os.close(os.open(part, NEW_FILE, _MODE))
            images = ledger.copy_to(part)
        rename_noreplace(part, target)
        sync_folder(os.path.dirname(os.path.abspath(target)))
    except FileExistsError:
        raise UsageError(f"{target} exists already; name another file.") from None
    except (OSError, CopyFailed) as error:
        raise UsageError(f"The copy cannot be written to {target} ({error}).") from error
    finally:
        for path in (part, f"{part}-wal", f"{part}-shm"):
            with suppress(OSError):
                os.unlink(path)
    return images
