"""Which parts of the daemon take new settings while it runs, and what they take of them."""

from __future__ import annotations

from collections.abc import Callable

from xray_watcher import log
from xray_watcher.config.settings import Settings
from xray_watcher.core.batching import Batching
from xray_watcher.core.settling import Settling
from xray_watcher.daemon import Timetable
from xray_watcher.intake.watcher import Inbox
from xray_watcher.pipeline.pipeline import Pipeline
from xray_watcher.reloading import DECODE_LIMITS, LivePart, RenewableDecoder
from xray_watcher.reports.daily import DailySummaries
from xray_watcher.sealing import Sealer

_SECONDS_A_MINUTE = 60.0


def live_parts(
    inbox: Inbox,
    settling: Settling,
    batching: Batching,
    decoder: RenewableDecoder,
    pipeline: Pipeline,
    sealer: Sealer,
    summaries: DailySummaries,
    use_timetable: Callable[[Timetable], None],
) -> tuple[LivePart, ...]:
    """Who takes new settings while the service runs; every other key waits for a restart."""
    return (
        LivePart(
            ("intake.suffixes", "intake.ignore"),
            lambda s: inbox.use(s.intake.suffixes, s.intake.ignore),
        ),
        LivePart(
            ("intake.incomplete_after_minutes",),
            lambda s: settling.use(incomplete_after_s(s)),
        ),
        LivePart(
            (
                "intake.settle_seconds",
                "intake.scan_seconds",
                "intake.min_free_bytes",
                "intake.give_up_after_minutes",
            ),
            lambda s: use_timetable(timetable(s)),
        ),
        LivePart(("batch", "intake.urgent"), lambda s: batching.use(*batch_rules(s))),
        LivePart(DECODE_LIMITS, decoder.use),
        LivePart(
            ("intake.duplicates", "intake.give_up_after_minutes"),
            lambda s: pipeline.use(s.intake.duplicates, give_up_after_s(s)),
        ),
        LivePart(("risk",), lambda s: sealer.use(s.risk_rules())),
        LivePart(("summary",), lambda s: summaries.use(s.summary.summary_seconds)),
        LivePart(("log",), lambda s: log.set_up(s.log.level)),
    )


def incomplete_after_s(settings: Settings) -> float:
    """After how many seconds without change a picture that is not whole is rejected."""
    return settings.intake.incomplete_after_minutes * _SECONDS_A_MINUTE


def give_up_after_s(settings: Settings) -> float:
    """After how many seconds a file that cannot be read is rejected."""
    return settings.intake.give_up_after_minutes * _SECONDS_A_MINUTE


def batch_rules(settings: Settings) -> tuple[int, float, float, tuple[str, ...]]:
    """Size, the seconds that end a batch, and who goes first, as `Batching` takes them."""
    batch = settings.batch
    return (
        batch.max_size,
        batch.quiet_seconds,
        batch.max_wait_seconds,
        settings.intake.urgent,
    )


def timetable(settings: Settings) -> Timetable:
    """When the daemon looks, as the settings have it."""
    folders, intake = settings.folders, settings.intake
    disks = (folders.state, folders.inbox, folders.classified, folders.rejected, folders.logs)
    return Timetable(
        scan_s=intake.scan_seconds,
        settle_s=intake.settle_seconds_on(network=False),
        network_settle_s=intake.settle_seconds_on(network=True),
        give_up_after_s=give_up_after_s(settings),
        min_free_bytes=intake.min_free_bytes,
        disks=disks,
    )
