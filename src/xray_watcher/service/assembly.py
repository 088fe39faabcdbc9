"""The composition root: the only module that knows every concrete class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress

import structlog

from xray_watcher import __version__
from xray_watcher.config.folders import Folders
from xray_watcher.config.settings import Settings
from xray_watcher.core.batching import Batching
from xray_watcher.core.health import HealthTracker
from xray_watcher.core.retries import Retries
from xray_watcher.core.settling import Settling
from xray_watcher.core.status_report import StatusReport
from xray_watcher.effects import build_effects
from xray_watcher.errors import Unavailable
from xray_watcher.intake.arrivals import Arrivals
from xray_watcher.intake.handover_watch import HandoverWatch
from xray_watcher.intake.inbox_watch import InboxWatch
from xray_watcher.intake.waiting import Waiting
from xray_watcher.intake.watcher import build_wakeup
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.log_files import LogFiles
from xray_watcher.model.engine import Engine
from xray_watcher.notify.setup import build_channels, build_subscriptions
from xray_watcher.pipeline.deciding import Decider
from xray_watcher.pipeline.images_in_hand import Decoder
from xray_watcher.pipeline.pipeline import build_pipeline
from xray_watcher.pipeline.scoring import Scorer
from xray_watcher.records import CsvLayout
from xray_watcher.reports.daily import DailySummaries
from xray_watcher.service.daemon import Daemon, Reporting, Timetable, Upkeep, Waking
from xray_watcher.service.folders import make_folder, prepare_folders
from xray_watcher.service.heartbeat import Heartbeat
from xray_watcher.service.network import check_weights, decode_pool, load_in_background
from xray_watcher.service.reports import Reports
from xray_watcher.service.upkeep import build_chores, build_notifier
from xray_watcher.system.advice import refusal
from xray_watcher.system.clock import Clock, SystemClock
from xray_watcher.system.hands import Threads
from xray_watcher.system.lock import InboxLock, InstanceLock
from xray_watcher.system.sandbox import missing_parts
from xray_watcher.system.signals import StopRequest, Waker

_MOST_HANDS = 32  # files that may hang at the same time before others wait for one of them
_SECONDS_A_MINUTE = 60.0

_log = structlog.get_logger()


@contextmanager
def assemble(
    settings: Settings,
    *,
    once: bool = False,
    reports: Reports | None = None,
    clock: Clock | None = None,
    decoder: Decoder | None = None,
    engine: Engine | None = None,
) -> Iterator[Daemon]:
    """Put the daemon together, ready to run; at the end everything is closed.

    Args:
        settings: what is in force.
        once: gather no batch longer than needed; nothing more is expected.
        reports: gets a report every few seconds while the daemon makes progress.
        clock: the time; the system's by default.
        decoder: decodes files; by default in child processes, as the settings have it.
        engine: the network; by default the one of the settings, loaded in another thread.

    Raises:
        WeightsError: the weights are not installed; nothing was touched.
        UsageError: an extra that a setting needs is not installed; nothing was touched.
        AlreadyRunning: another daemon holds the ledger or the inbox.
        ConfigError: the inbox was changed while images or uploads of the old one are open, or a
            secret of `[notify]` cannot be used.
        LedgerError: the ledger cannot be used.
        Unavailable: a folder cannot be made or written.
    """
    folders, clock = settings.folders, clock or SystemClock()
    check_weights(settings)
    if missing_parts():
        _log.warning(
            "decoders are less confined", code="decoders_less_confined", missing=missing_parts()
        )
    channels, subscriptions = build_channels(settings.notify), build_subscriptions(settings.notify)
    with ExitStack() as stack:
        loading = _engine(settings, engine)  # the slowest part: it goes on beside all others
        make_folder(folders.state, "state_dir")
        _take_instance_lock(folders, reports, stack)
        ledger = stack.enter_context(Ledger(folders.ledger))

        def beat() -> None:
            heartbeat.beat(clock.monotonic_s())

        spool, inbox = prepare_folders(settings, ledger, beat)
        lock = stack.enter_context(InboxLock(folders.inbox, spool.work.path, ledger.id))
        with suppress(Unavailable):  # the daemon waits for an inbox that is out of reach
            lock.take()
        waker = _waker(folders)
        if decoder is None:
            decoder = stack.enter_context(decode_pool(settings))
        loading.add_done_callback(lambda _engine: waker.wake())
        stack.callback(loading.add_done_callback, lambda _engine: waker.close())
        retries, hands = Retries(), stack.enter_context(closing(Threads(_MOST_HANDS)))
        zone, times = settings.zone, _timetable(settings)
        pipeline = build_pipeline(
            ledger=ledger,
            spool=spool,
            logs=LogFiles(folders.logs, ledger),
            decoder=decoder,
            hands=hands,
            engine=loading.result,
            scorer=stack.enter_context(closing(Scorer(clock))),
            decider=Decider(
                ledger,
                spool.results,
                settings.risk_rules(),
                CsvLayout(settings.weight_set.labels, zone),
                zone,
            ),
            retries=retries,
            duplicates=settings.intake.duplicates,
            give_up_after_s=times.give_up_after_s,
            clock=clock,
            zone=zone,
            beat=beat,
            effects=build_effects(subscriptions, settings.risk.thresholds),
        )
        settling = _settling(settings)
        inbox_watch = InboxWatch(
            inbox=inbox,
            wakeup=build_wakeup(folders.inbox, settings.intake.watch, waker.wake),
            lock=lock,
            source=spool.inbox,
            settling=settling,
            retries=retries,
            hands=hands,
            clock=clock,
            beat=beat,
        )
        handover = HandoverWatch(spool.handover, retries, clock)
        arrivals = Arrivals(inbox_watch, handover, _batching(settings, once=once))
        waiting = Waiting(retries, settling, inbox_watch, times.give_up_after_s)
        summaries = DailySummaries(
            ledger,
            os.path.join(folders.logs, "daily"),
            settings.summary.summary_seconds,
            zone,
            clock,
            lambda: len(arrivals),
            subscriptions,
            lambda: [*settling.first_seen_s, *spool.handover.first_seen_s],
        )
        health = HealthTracker()
        notifier = build_notifier(
            settings.notify, ledger, channels, subscriptions, health, waker, clock
        )

        def make_report() -> StatusReport:
            oldest_s, now_s = settling.oldest_seen_s, clock.monotonic_s()
            is_loaded = loading.done() and loading.exception() is None
            refused = reports.refusal if reports is not None else ""
            return StatusReport(
                version=__version__,
                pid=os.getpid(),
                at=clock.now(),
                sandbox_lacks=list(missing_parts()),
                model=loading.result().info if is_loaded else None,
                is_ready=daemon.is_ready,
                waiting_in_inbox=len(settling),
                unfinished=settling.unfinished,
                uploads=len(spool.handover),
                oldest_waiting_s=None if oldest_s is None else round(now_s - oldest_s, 1),
                ignored=daemon.ignored,
                batches_in_hand=pipeline.open_batches,
                filed_since_start=pipeline.done,
                retries=waiting.figures(now_s),
                problems=dict(health.reasons) | notifier.problems,
                last_error=refused or health.last_error,
            )

        heartbeat = Heartbeat(
            folders.heartbeat,
            make_report,
            reports,
            folders.waiting,
            lambda: waiting.named(clock.monotonic_s(), clock.now().timestamp()),
        )
        chores = build_chores(
            settings, ledger, spool, make_report, clock, notifier if channels else None
        )
        daemon = Daemon(
            arrivals=arrivals,
            spool=spool,
            pipeline=pipeline,
            retries=retries,
            engine=loading,
            reporting=Reporting(health, heartbeat, waiting),
            timetable=times,
            upkeep=Upkeep(summaries, chores),
            waking=Waking(clock, waker, StopRequest(waker)),
        )
        yield daemon


def _engine(settings: Settings, engine: Engine | None) -> Future[Engine]:
    if engine is None:
        return load_in_background(settings)
    ready: Future[Engine] = Future()
    ready.set_result(engine)
    return ready


def _take_instance_lock(folders: Folders, reports: Reports | None, stack: ExitStack) -> None:
    """Take the ledger's lock; the outer process keeps it while this one makes room for the next."""
    if reports is None:
        stack.enter_context(InstanceLock(folders.lock))
    else:
        lock = stack.enter_context(InstanceLock(folders.lock, reports.lock))
        reports.keep(lock.fileno())


def _waker(folders: Folders) -> Waker:
    try:
        return Waker(folders.waker)
    except OSError as error:
        what = f"The named pipe {folders.waker} cannot be used"
        raise Unavailable("folders", refusal(what, error)) from error


def _settling(settings: Settings) -> Settling:
    intake = settings.intake
    settle_s = intake.settle_seconds_on(network=True)  # until it is known what lies there
    return Settling(settle_s, intake.incomplete_after_minutes * _SECONDS_A_MINUTE)


def _batching(settings: Settings, *, once: bool) -> Batching:
    batch = settings.batch
    quiet_s = 0.0 if once else batch.quiet_seconds
    return Batching(batch.max_size, quiet_s, batch.max_wait_seconds, settings.intake.urgent)


def _timetable(settings: Settings) -> Timetable:
    folders, intake = settings.folders, settings.intake
    return Timetable(
        scan_s=intake.scan_seconds,
        settle_s=intake.settle_seconds_on(network=False),
        network_settle_s=intake.settle_seconds_on(network=True),
        give_up_after_s=intake.give_up_after_minutes * _SECONDS_A_MINUTE,
        min_free_bytes=intake.min_free_bytes,
        disks=(folders.state, folders.inbox, folders.classified, folders.rejected, folders.logs),
    )
