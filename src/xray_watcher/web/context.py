"""What every route is given: settings, the time, the ledger, and how the daemon is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from anyio.to_thread import run_sync

from xray_watcher.commands.status import DaemonState, daemon_state
from xray_watcher.config.settings import Settings
from xray_watcher.ledger.api_queries import WebLedger
from xray_watcher.system.clock import Clock

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class WebContext:
    """What every route is given; one for the life of the process."""

    settings: Settings
    clock: Clock

    def ledger(self) -> WebLedger:
        """Open the ledger for one request: `with context.ledger() as ledger:`, in a thread.

        Raises:
            LedgerError: there is none, or it cannot be read.
        """
        return WebLedger.open(self.settings.folders.ledger)

    async def read(self, query: Callable[[WebLedger], _T]) -> _T:
        """Ask the ledger in a thread; see `ledger`."""

        def ask() -> _T:
            with self.ledger() as ledger:
                return query(ledger)

        return await run_sync(ask)

    def daemon_state(self) -> DaemonState:
        """How the daemon is, from its lock and its heartbeat; in a thread, for it reads both."""
        return daemon_state(self.settings.folders, self.clock.now())
