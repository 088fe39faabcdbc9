"""Where everything lies: the folders and files of one service."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Folders:
    """Where everything lies: absolute paths, symbolic links not resolved.

    Attributes:
        root: the folder that the others lie below unless they are set.
        inbox: watched for images.
        classified: holds High, Medium and Low.
        rejected: holds what could not be scored.
        duplicates: holds repeated images.
        logs: holds the JSONL and CSV logs and the daily figures.
        state: local disk of the service.
    """

    root: str
    inbox: str
    classified: str
    rejected: str
    duplicates: str
    logs: str
    state: str

    @property
    def ledger(self) -> str:
        """The file of the ledger."""
        return os.path.join(self.state, "ledger.sqlite3")

    @property
    def lock(self) -> str:
        """The file whose lock says that the ledger is in use."""
        return os.path.join(self.state, "lock")

    @property
    def waker(self) -> str:
        """The named pipe by which the web wakes the daemon."""
        return os.path.join(self.state, "waker")

    @property
    def heartbeat(self) -> str:
        """The file of the running daemon's status."""
        return os.path.join(self.state, "heartbeat.json")

    @property
    def waiting(self) -> str:
        """The file in which the running daemon names the images that wait; not for everybody."""
        return os.path.join(self.state, "waiting.json")

    @property
    def weights(self) -> str:
        """The folder of imported weights."""
        return os.path.join(self.state, "weights")
