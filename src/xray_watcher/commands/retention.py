"""`xray-watcher retention`: says what is due for deletion, or deletes it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from xray_watcher.config.settings import Settings
from xray_watcher.core.times import from_us, local_day, local_text, to_us
from xray_watcher.intake.work_folder import find_work_folder
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.removals import Share, due_logs, share_of
from xray_watcher.retention.retention import Done
from xray_watcher.service.folders import build_spool
from xray_watcher.service.upkeep import build_retention, retention_rules
from xray_watcher.system.clock import Clock
from xray_watcher.system.lock import InstanceLock

OFF = "Nothing is ever removed: no age is set in [retention]."


def plan(settings: Settings, now: datetime) -> Iterator[str]:
    """What is due for deletion now, one line each; nothing is changed.

    Args:
        now: the time, aware.

    Raises:
        LedgerError: there is no ledger.
    """
    rules = retention_rules(settings.retention)
    if rules.is_off:
        yield OFF
        return
    with LedgerReader.open(settings.folders.ledger) as ledger:
        for folder, days in rules.days.items():
            if days:
                yield _line(settings, share_of(ledger, rules, folder, to_us(now)))
        if rules.logs_days:
            logs = [state.name for state in due_logs(ledger, rules, local_day(now, settings.zone))]
            yield f"logs: delete {len(logs)}" + (f", {logs[0]} to {logs[-1]}" if logs else "")


def _line(settings: Settings, share: Share) -> str:
    if not share.images or share.before_us is None:
        return f"{share.folder}: delete none, keep {share.kept}"
    before = local_text(from_us(share.before_us), settings.zone)
    return (
        f"{share.folder}: delete {share.images} ({share.size / 1e6:.1f} MB, "
        f"filed before {before}), keep {share.kept}"
    )


def clean_up(settings: Settings, clock: Clock) -> Done:
    """Remove all that is old enough.

    Raises:
        AlreadyRunning: the service runs; it does this itself once a day.
        LedgerError: there is no ledger.
        Unavailable: a folder is out of reach; what is done is done.
    """
    folders = settings.folders
    LedgerReader.open(folders.ledger).close()  # none is made here
    with InstanceLock(folders.lock), Ledger(folders.ledger) as ledger:
        spool = build_spool(settings, ledger.meta("work") or find_work_folder(folders))
        retention = build_retention(settings, ledger, spool, clock)
        while retention.step(again=True):
            pass
        return retention.last
