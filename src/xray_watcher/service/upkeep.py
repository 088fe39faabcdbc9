"""Builds the chores: notifications, metrics, retention."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xray_watcher.config.settings import Settings
from xray_watcher.config.upkeep import NotifySettings, RetentionSettings
from xray_watcher.core.health import HealthTracker
from xray_watcher.core.notices import Subscriptions
from xray_watcher.core.retention import RetentionRules
from xray_watcher.core.status_report import StatusReport
from xray_watcher.core.values import DUPLICATES_FOLDER, REJECTED_FOLDER
from xray_watcher.effects.results import FillResults
from xray_watcher.intake.empty_folders import EmptyFolders
from xray_watcher.intake.spool import Spool
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.log_files import LogFiles
from xray_watcher.notify.channels import Channel
from xray_watcher.notify.notifier import Notifier
from xray_watcher.notify.sender import Sender
from xray_watcher.reports.metrics import folders_by_name
from xray_watcher.reports.textfile import MetricsFile
from xray_watcher.retention.retention import Retention
from xray_watcher.service.chores import Chore, Contained
from xray_watcher.system.clock import Clock
from xray_watcher.system.signals import Waker

_SECONDS_AN_HOUR = 3600.0


def build_chores(
    settings: Settings,
    ledger: Ledger,
    spool: Spool,
    make_report: Callable[[], StatusReport],
    clock: Clock,
    notifier: Notifier | None,
) -> list[Chore]:
    """All chores, each contained for itself; notifications before files."""
    chores: list[Chore] = [
        *_metrics_files(settings, ledger, make_report, clock),
        *([notifier] if notifier is not None else []),
        build_retention(settings, ledger, spool, clock),
        *_empty_folders(settings, clock),
        FillResults(ledger, settings.risk.thresholds),
    ]
    return [Contained(chore) for chore in chores]


def _metrics_files(
    settings: Settings, ledger: Ledger, make_report: Callable[[], StatusReport], clock: Clock
) -> list[Chore]:
    """The file for node_exporter, if one is wanted."""
    if not settings.metrics.textfile:
        return []
    metrics = MetricsFile(
        settings.metrics.textfile,
        settings.metrics.textfile_seconds,
        ledger,
        make_report,
        disks=folders_by_name(settings.folders),
        min_free=settings.intake.min_free_bytes,
        channels=settings.notify.kinds,
        clock=clock,
    )
    return [metrics]


def build_notifier(
    settings: NotifySettings,
    ledger: Ledger,
    channels: Mapping[str, Channel],
    subscriptions: Subscriptions,
    health: HealthTracker,
    waker: Waker,
    clock: Clock,
) -> Notifier:
    """Sends notifications, as `[notify]` has it."""
    return Notifier(
        ledger=ledger,
        sender=Sender(channels, waker.wake),
        subscriptions=subscriptions,
        channels=channels.keys(),
        problems=lambda: health.reasons,
        clock=clock,
        per_minute=settings.per_minute,
        degraded_after_s=settings.degraded_after_seconds,
        give_up_after_s=settings.give_up_after_hours * _SECONDS_AN_HOUR,
        include_names=settings.include_names,
    )


def _empty_folders(settings: Settings, clock: Clock) -> list[Chore]:
    """What removes empty folders from the inbox, if that is wanted."""
    days = settings.intake.remove_empty_folders_after_days
    if not days:
        return []
    return [EmptyFolders(settings.folders.inbox, settings.intake.ignore, days, clock)]


def retention_rules(settings: RetentionSettings) -> RetentionRules:
    """The `[retention]` table as the core takes it."""
    return RetentionRules(
        days={
            "High": settings.high_days,
            "Medium": settings.medium_days,
            "Low": settings.low_days,
            REJECTED_FOLDER: settings.rejected_days,
            DUPLICATES_FOLDER: settings.duplicates_days,
        },
        logs_days=settings.logs_days,
        keep_days=settings.keep_at_least_days,
        keep_images=settings.keep_at_least_images,
    )


def build_retention(settings: Settings, ledger: Ledger, spool: Spool, clock: Clock) -> Retention:
    """What removes old files, as the settings have it."""
    return Retention(
        ledger,
        spool.results.target_path,
        LogFiles(settings.folders.logs, ledger),
        retention_rules(settings.retention),
        settings.zone,
        clock,
    )
