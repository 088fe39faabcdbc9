"""The composition root: the only module that knows every concrete class."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from typing import Any

import structlog

from xray_watcher import __version__
from xray_watcher.bootstrap_care import (
    empty_folders,
    metrics_files,
    notifier_of,
    retention_of,
)
from xray_watcher.chores import Contained
from xray_watcher.config.folders import Folders
from xray_watcher.config.settings import Settings
from xray_watcher.core.batching import Batching
from xray_watcher.core.health import Health
from xray_watcher.core.retries import Retries
from xray_watcher.core.settling import Settling
from xray_watcher.core.times import utc_text
from xray_watcher.core.values import LEVELS
from xray_watcher.daemon import Daemon
from xray_watcher.effects.notices import ImageNotices
from xray_watcher.effects.totals import add_to_totals
from xray_watcher.errors import ConfigError, Unavailable
from xray_watcher.heartbeat import Heartbeat
from xray_watcher.imaging.decode_pool import DecodePool
from xray_watcher.intake.arrivals import Arrivals
from xray_watcher.intake.handover_watch import HandoverWatch
from xray_watcher.intake.inbox_watch import InboxWatch
from xray_watcher.intake.sources import row_origin
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.waiting import Waiting
from xray_watcher.intake.watcher import Inbox, build_inbox, wakeup_for
from xray_watcher.intake.work_folder import find_work_folder
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.rows import ImageRow
from xray_watcher.ledger.states import State
from xray_watcher.ledger.used_indexes import highest_index
from xray_watcher.live_parts import (
    batch_rules,
    give_up_after_s,
    incomplete_after_s,
    live_parts,
    timetable,
)
from xray_watcher.logs import LogFiles
from xray_watcher.model.engine import Engine, load_engine
from xray_watcher.model.onnx_file import check_onnx
from xray_watcher.model.self_test import check_engine
from xray_watcher.model.weights import WeightStore
from xray_watcher.notify.setup import audience_of, channels_of
from xray_watcher.pipeline.pipeline import Pipeline, build_pipeline
from xray_watcher.pipeline.scoring import Scorer
from xray_watcher.records import CsvLayout
from xray_watcher.reloading import NoReloading, Reloading, RenewableDecoder
from xray_watcher.reports.daily import DailySummaries
from xray_watcher.restoring import take_back
from xray_watcher.sealing import DUPLICATES_FOLDER, REJECTED_FOLDER, Sealer
from xray_watcher.system.advice import refusal
from xray_watcher.system.clock import Clock, SystemClock
from xray_watcher.system.files import keep_to_owner
from xray_watcher.system.hands import Threads
from xray_watcher.system.lock import InboxLock, InstanceLock
from xray_watcher.system.memory import memory_bytes
from xray_watcher.system.mounts import is_same_mount
from xray_watcher.system.sandbox import missing_parts
from xray_watcher.system.signals import Bell, ReloadRequest, StopRequest

_FOLDER_MODE = 0o750
_MOST_HANDS = 32  # files that may hang at the same time before others wait for one of them
_BYTES_BESIDE_DECODERS = 1_500_000_000  # the network at work, and what the system keeps
_DECODER_BYTES = 600_000_000  # with the largest picture; docs/reliability.md has 554 MB

_log = structlog.get_logger()


@contextmanager
def assembled_daemon(
    settings: Settings,
    *,
    once: bool = False,
    report: Callable[[Mapping[str, Any]], None] = lambda _told: None,
    reload: Callable[[], Settings] | None = None,
) -> Iterator[Daemon]:
    """Put the daemon together, ready to run; at the end everything is closed.

    Args:
        settings: what is in force.
        once: gather no batch longer than needed; nothing more is expected.
        report: is told every few seconds how things are while the daemon makes progress.
        reload: reads all settings anew; None where SIGHUP asks for nothing.

    Raises:
        WeightsError: the weights are not installed; nothing was touched.
        UsageError: an extra that a setting needs is not installed; nothing was touched.
        AlreadyRunning: another daemon holds the ledger or the inbox.
        ConfigError: the inbox was changed while images of the old one are in hand, or a secret
            of `[notify]` cannot be used.
        LedgerError: the ledger cannot be used.
        Unavailable: a folder cannot be made or written.
    """
    folders, clock = settings.folders, SystemClock()
    _check_weights(settings)
    if missing_parts():
        _log.warning("decoders are less confined", missing=missing_parts())
    channels, audience = channels_of(settings.notify), audience_of(settings.notify)
    with ExitStack() as stack:
        _make(folders.state, "state_dir")
        stack.enter_context(InstanceLock(folders.lock))
        ledger = stack.enter_context(Ledger(folders.ledger))

        def beat() -> None:
            heartbeat.beat(clock.monotonic_s())

        spool, inbox = _prepared_folders(settings, ledger, beat)
        lock = stack.enter_context(InboxLock(folders.inbox, spool.work.path, ledger.id))
        with suppress(Unavailable):  # the daemon waits for an inbox that is out of reach
            lock.take()
        bell = _bell(folders)
        request = ReloadRequest(bell)
        if reload is not None:
            stack.enter_context(request.on_signal())
        decoder = stack.enter_context(RenewableDecoder(decode_pool, settings))
        sealer = _sealer(settings, ledger, spool)
        engine = _engine_in_background(settings)
        engine.add_done_callback(lambda _engine: bell.ring())
        stack.callback(engine.add_done_callback, lambda _engine: bell.close())
        retries, hands = Retries(), stack.enter_context(closing(Threads(_MOST_HANDS)))
        pipeline = build_pipeline(
            ledger=ledger,
            spool=spool,
            logs=LogFiles(folders.logs, ledger),
            decoder=decoder,
            hands=hands,
            engine=engine.result,
            scorer=stack.enter_context(closing(Scorer(clock))),
            sealer=sealer,
            retries=retries,
            clock=clock,
            zone=settings.zone,
            beat=beat,
            effects=(add_to_totals, ImageNotices(audience)),
        )
        pipeline.use(settings.intake.duplicates, give_up_after_s(settings))
        batching = _batching(settings, once=once)
        settling = _settling(settings)
        inbox_watch = InboxWatch(
            inbox=inbox,
            wakeup=wakeup_for(folders.inbox, settings.intake.watch, bell.ring),
            lock=lock,
            source=spool.inbox,
            settling=settling,
            retries=retries,
            hands=hands,
            clock=clock,
            beat=beat,
        )
        arrivals = Arrivals(inbox_watch, HandoverWatch(spool.handover, retries, clock), batching)
        waiting = Waiting(retries, settling, inbox_watch, lambda: inbox_watch.give_up_after_s)
        summaries = DailySummaries(
            ledger,
            os.path.join(folders.logs, "daily"),
            settings.summary.summary_seconds,
            settings.zone,
            clock,
            lambda: len(arrivals),
            audience,
            lambda: [*settling.first_seen_s, *spool.handover.first_seen_s],
        )
        reloading: Reloading | NoReloading = NoReloading()
        if reload is not None:
            live = live_parts(
                inbox, settling, batching, decoder, pipeline, sealer, summaries,
                lambda timetable: daemon.use(timetable),  # noqa: PLW0108 - it is made below
            )  # fmt: skip
            reloading = Reloading(request, settings, reload, live)
        health = Health()
        notifier = notifier_of(settings.notify, ledger, channels, audience, health, bell, clock)

        def tell() -> dict[str, Any]:
            told = _told(daemon, settling, spool, pipeline, health, engine, clock)
            told["waiting"] = waiting.figures(clock.monotonic_s())
            return told | {"troubles": told["troubles"] | notifier.troubles}

        def names() -> list[dict[str, Any]]:
            return waiting.named(clock.monotonic_s(), clock.now().timestamp())

        heartbeat = Heartbeat(folders.heartbeat, tell, report, folders.waiting, names)
        daemon = Daemon(
            arrivals=arrivals,
            spool=spool,
            pipeline=pipeline,
            retries=retries,
            waiting=waiting,
            engine=engine,
            summaries=summaries,
            health=health,
            heartbeat=heartbeat,
            timetable=timetable(settings),
            chores=[
                *map(Contained, metrics_files(settings, ledger, tell, clock)),
                *([Contained(notifier)] if channels else []),
                Contained(retention_of(settings, ledger, spool, clock)),
                *map(Contained, empty_folders(settings, clock)),
            ],
            clock=clock,
            bell=bell,
            stop=StopRequest(bell),
            reloading=reloading,
        )
        yield daemon


def spool_of(settings: Settings, work: str, beat: Callable[[], None] = lambda: None) -> Spool:
    """The folders that images pass through, as the settings have them."""
    folders = settings.folders
    return Spool(folders.inbox, work, _targets(folders), folders.root, beat)


def _targets(folders: Folders) -> dict[str, str]:
    """Where images are filed, by the key of each folder."""
    return {
        **{level: os.path.join(folders.classified, level) for level in LEVELS},
        REJECTED_FOLDER: folders.rejected,
        DUPLICATES_FOLDER: folders.duplicates,
    }


def engine_of(settings: Settings) -> Engine:
    """Load the network that the settings name.

    Raises:
        WeightsError: its weights are missing or wrong.
    """
    model = settings.model
    return load_engine(
        model.weights,
        model.weights_file,
        settings.folders.weights,
        kind=model.engine,
        threads=model.threads,
        device=model.device,
        precision=model.precision,
    )


# -- folders ------------------------------------------------------------------------------


def _make(folder: str, key: str) -> None:
    """Make a folder that a key names, unless it is there; not for everybody's eyes."""
    try:
        os.makedirs(folder, mode=_FOLDER_MODE, exist_ok=True)
    except OSError as error:
        what = f"The folder {folder} ({key}) cannot be made"
        raise Unavailable("folders", refusal(what, error)) from error


def _prepared_folders(
    settings: Settings, ledger: Ledger, beat: Callable[[], None]
) -> tuple[Spool, Inbox]:
    """Make what is missing; but never an inbox that was there before, for its share is away.

    Raises:
        ConfigError: the inbox was changed while images of the old one are in hand.
        Unavailable: a folder cannot be made or written.
    """
    folders = settings.folders
    known_inbox, known_work = ledger.meta("inbox"), ledger.meta("work")
    if known_work is not None and _is_still_right(ledger, known_inbox, known_work, folders.inbox):
        spool, inbox = spool_of(settings, known_work, beat), build_inbox(settings, known_work)
    else:
        spool, inbox = _begun_inbox(settings, ledger, beat, known_inbox)
    # In an inbox they inherit an ACL that lets a whole group write.
    for folder in (spool.work.path, spool.handover.folder):
        with suppress(OSError):  # the share is away
            keep_to_owner(folder)
    spool.results.make_targets()
    _go_on_behind_the_outputs(ledger, folders)
    _make(folders.logs, "intake.logs")
    return spool, inbox


def _is_still_right(ledger: Ledger, known_inbox: str | None, work: str, inbox: str) -> bool:
    """Whether the work folder of an earlier start goes with the inbox.

    One that lies on another mount of the same disk takes no file; it is left when it is empty.
    """
    if known_inbox != inbox:
        return False
    try:
        return bool(ledger.open_rows()) or is_same_mount(inbox, work)
    except OSError:
        return True  # a share is away; it is waited for


def _begun_inbox(
    settings: Settings, ledger: Ledger, beat: Callable[[], None], known_inbox: str | None
) -> tuple[Spool, Inbox]:
    """Begin with an inbox that the ledger does not know: a new one, or the old one moved."""
    folders = settings.folders
    in_hand = ledger.open_rows()
    if in_hand and not os.path.isdir(folders.inbox):
        raise _other_inbox(len(in_hand), known_inbox)
    if not os.path.isdir(folders.inbox):
        _make(folders.inbox, "intake.inbox")
    work = find_work_folder(folders)
    spool = spool_of(settings, work, beat)
    if not all(_lies_in(spool, row) for row in in_hand):
        raise _other_inbox(len(in_hand), known_inbox)
    spool.make_inbox()
    with ledger.transaction():
        ledger.set_meta("inbox", folders.inbox)
        ledger.set_meta("work", work)
    return spool, build_inbox(settings, work)


def _go_on_behind_the_outputs(ledger: Ledger, folders: Folders) -> None:
    """Use no index twice, in whatever way an older ledger, or none, came to lie there."""
    take_back(ledger, folders.logs)
    highest = highest_index(folders.logs, _targets(folders).values())
    if highest >= ledger.next_index:
        _log.warning("the ledger is older than its outputs", next_index=highest + 1)
        ledger.go_on_at(highest + 1)


def _lies_in(spool: Spool, row: ImageRow) -> bool:
    """Whether an open image lies where these folders would have it: they were moved with it."""
    if row.state == State.FILING and (row.folder is None or row.filed_name is None):
        return True  # it had vanished; its line alone is to be written
    with suppress(OSError):
        if os.path.getsize(spool.work.path_of(row.id)) == row.size:
            return True
    if row.state == State.FILING and row.folder is not None and row.filed_name is not None:
        return spool.results.taken(row.folder, row.filed_name)
    return row.state == State.CLAIMING and spool.is_still_there(row_origin(row))


def _other_inbox(in_hand: int, known_inbox: str | None) -> ConfigError:
    problem = (
        f"intake.inbox: the ledger has {in_hand} open images of the inbox {known_inbox}, and not "
        "all of them lie in the new folders. Move its work folder along with the inbox, or run "
        "once more with that inbox (`xray-watcher run --once --inbox ...`), then change it"
    )
    return ConfigError([problem])


def _check_weights(settings: Settings) -> None:
    if settings.model.engine == "onnx":
        check_onnx()
    if not settings.model.weights_file:
        WeightStore(settings.folders.weights).check_installed(settings.model.weights)


# -- parts --------------------------------------------------------------------------------


def decode_pool(settings: Settings) -> DecodePool:
    """The child processes that decode, as the settings have them."""
    decoders = settings.model.decoders or decoders_for(cores(), memory_bytes())
    return DecodePool(decoders, settings.decode_limits())


def decoders_for(cores: int, memory: int) -> int:
    """One decoder per core, if memory has room for so many large pictures at once.

    Args:
        cores: that may be used.
        memory: bytes that may be used.
    """
    return max(1, min(cores, (memory - _BYTES_BESIDE_DECODERS) // _DECODER_BYTES))


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _sealer(settings: Settings, ledger: Ledger, spool: Spool) -> Sealer:
    layout = CsvLayout(settings.weight_set.labels, settings.zone)
    return Sealer(ledger, spool.results, settings.risk_rules(), layout, settings.zone)


def _bell(folders: Folders) -> Bell:
    try:
        return Bell(folders.bell)
    except OSError as error:
        what = f"The named pipe {folders.bell} cannot be used"
        raise Unavailable("folders", refusal(what, error)) from error


def _settling(settings: Settings) -> Settling:
    settle_s = settings.intake.settle_seconds_on(network=True)  # until it is known what lies there
    return Settling(settle_s, incomplete_after_s(settings))


def _batching(settings: Settings, *, once: bool) -> Batching:
    max_size, quiet_s, max_wait_s, urgent = batch_rules(settings)
    return Batching(max_size, 0.0 if once else quiet_s, max_wait_s, urgent)


def _engine_in_background(settings: Settings) -> Future[Engine]:
    """Load the network while files are claimed and decoded already.

    In a thread that does not keep the process from ending: importing torch takes seconds.
    """
    future: Future[Engine] = Future()

    def load() -> None:
        try:
            engine = engine_of(settings)
            check_engine(engine)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for it
            future.set_exception(error)
        else:
            _log.info(
                "network ready",
                weights=engine.info.name,
                sha256=engine.info.sha256,
                precision=engine.info.precision,
                simulated=engine.info.simulated,
            )
            future.set_result(engine)

    threading.Thread(target=load, name="load-network", daemon=True).start()
    return future


def _told(
    daemon: Daemon,
    settling: Settling,
    spool: Spool,
    pipeline: Pipeline,
    health: Health,
    engine: Future[Engine],
    clock: Clock,
) -> dict[str, Any]:
    """What `status` shows of the running daemon."""
    now_s = clock.monotonic_s()
    oldest_s = settling.oldest_seen_s
    is_loaded = engine.done() and engine.exception() is None
    return {
        "version": __version__,
        "pid": os.getpid(),
        "ready": daemon.is_ready,
        "reloads": daemon.reloads,
        "at": utc_text(clock.now()),
        "waiting_in_inbox": len(settling),
        "unfinished": settling.unfinished,
        "uploads": len(spool.handover),
        "oldest_waiting_s": None if oldest_s is None else round(now_s - oldest_s, 1),
        "ignored": daemon.ignored,
        "batches_in_hand": pipeline.batches_in_hand,
        "filed_since_start": pipeline.done,
        "troubles": {cause: trouble.detail for cause, trouble in health.causes.items()},
        "last_error": health.last_error,
        "sandbox_lacks": missing_parts(),
        "model": asdict(engine.result().info) if is_loaded else None,
    }
