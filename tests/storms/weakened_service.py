"""The stub service with one safeguard taken away, to show that the power cut harness would see it.

XRAY_WEAKENED=normal python tests/storms/weakened_service.py run --config FILE
"""

from __future__ import annotations

import os
import sqlite3

import stub_service

from xray_watcher.cli.main import main
from xray_watcher.intake import inbox_source
from xray_watcher.service import folders, network


class _Connection(sqlite3.Connection):
    """Keeps the ledger from being synchronised as fully as it asks for."""

    mode = "NORMAL"

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
        if "synchronous" in sql:
            sql = f"PRAGMA synchronous = {self.mode}"
        return super().execute(sql, *parameters)  # type: ignore[arg-type]


def without_full_commits() -> None:
    """The ledger's commits are in order, but not on the disk when they return.

    Nor does it take back from the logs what it has lost: that would heal most of it.
    """
    folders.take_back = lambda *_args: 0  # type: ignore[assignment]
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(  # type: ignore[assignment]
        *args, **options, factory=_Connection
    )


def without_fsync() -> None:
    """Nothing is on the disk before the kernel thinks fit."""
    _Connection.mode = "OFF"
    without_full_commits()
    os.fsync = os.fdatasync = lambda _fd: None


def without_looking() -> None:
    """A file that has not changed for a while is taken, whoever writes it, whole or not."""
    inbox_source.check_readiness = lambda *_args, **_options: "ready"


WEAKENED = {"normal": without_full_commits, "fsync": without_fsync, "hasty": without_looking}

if __name__ == "__main__":
    network.load_engine = stub_service.stub
    WEAKENED[os.environ["XRAY_WEAKENED"]]()
    main()
