"""A whole daemon with real folders and a real ledger, but the clock, decoder and network in hand.

A picture of these tests is a text: `picture:Edema` is one in which Edema scores 0.9 (any text
after that makes its bytes its own), `unreadable` is none, `nan` has no finite score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from xray_watcher.config.settings import Settings
from xray_watcher.core.batching import Batching
from xray_watcher.core.catalogue import UNTRAINED
from xray_watcher.core.health import HealthTracker
from xray_watcher.core.naming import WORK_FOLDER
from xray_watcher.core.notices import NO_SUBSCRIPTIONS, Subscriptions
from xray_watcher.core.retries import Retries
from xray_watcher.core.settling import Settling
from xray_watcher.core.status_report import StatusReport
from xray_watcher.core.values import ModelInfo, Rejection
from xray_watcher.effects import build_effects
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import Decoded, DecodeOutcome, Unreadable
from xray_watcher.imaging.picture import DecodedImage
from xray_watcher.intake.arrivals import Arrivals
from xray_watcher.intake.handover_watch import HandoverWatch
from xray_watcher.intake.inbox_watch import InboxWatch
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.waiting import Waiting
from xray_watcher.intake.watcher import Inbox, NoWakeup
from xray_watcher.ledger.effect import Effect
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.log_files import LogFiles
from xray_watcher.model.engine import Engine
from xray_watcher.pipeline.deciding import Decider
from xray_watcher.pipeline.pipeline import build_pipeline
from xray_watcher.pipeline.scoring import Scorer
from xray_watcher.records import CsvLayout
from xray_watcher.reports.daily import DailySummaries
from xray_watcher.service.chores import Chore
from xray_watcher.service.daemon import Daemon, Reporting, Timetable, Upkeep, Waking
from xray_watcher.service.heartbeat import Heartbeat
from xray_watcher.system.lock import InboxLock
from xray_watcher.system.signals import StopRequest, Waker

LABELS = UNTRAINED.labels
SETTLE_S, QUIET_S, MAX_WAIT_S, INCOMPLETE_S, SCAN_S = 2.0, 1.0, 10.0, 900.0, 5.0
GIVE_UP_S = 3600.0
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class HandClock:
    """Time that goes on when it is told to, and a clock on the wall that can be set."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.started = START

    def monotonic_s(self) -> float:
        return 1000.0 + self.passed_s

    def now(self) -> datetime:
        return self.started + timedelta(seconds=self.passed_s)

    def set_to(self, now: datetime) -> None:
        """Set the clock on the wall; the monotonic one goes on as before."""
        self.started = now - timedelta(seconds=self.passed_s)


class InlineHands:
    """Makes each call at once, in the thread that asks for it."""

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            future.set_exception(error)
        return future


class TextDecoder:
    """Decodes at once; `broken` makes it fail as if no child could be started."""

    broken = False

    def submit(self, path: str) -> Future[DecodeOutcome]:
        future: Future[DecodeOutcome] = Future()
        if self.broken:
            future.set_exception(Unavailable("decoder", "no child"))
        else:
            future.set_result(self._outcome(Path(path).read_bytes()))
        return future

    def _outcome(self, content: bytes) -> DecodeOutcome:
        kind, _, label = content.decode("latin-1").partition(":")
        if kind == "nan":
            value = np.nan
        elif kind == "picture":
            value = float(LABELS.index(label.split("#")[0]))
        else:
            return Unreadable(Rejection("corrupt", "It is no picture."), 0.001)
        pixels = np.full((1, 224, 224), value, np.float32)
        return Decoded(DecodedImage(pixels, 300, 250), 0.001)


class TextEngine:
    """Scores 0.9 for the label that the pixels name and 0.05 for the others."""

    labels = LABELS
    operating_points = (0.5,) * len(LABELS)
    info = ModelInfo("untrained", "ab" * 32, "float32", simulated=True)
    broken = False
    batches: list[int]

    def __init__(self) -> None:
        self.batches = []

    def classify(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.broken:
            raise RuntimeError("out of memory")
        self.batches.append(len(batch))
        scores = np.full((len(batch), len(LABELS)), 0.05, np.float32)
        for row, pixels in zip(scores, batch, strict=True):
            if np.isnan(pixels.flat[0]):
                row[:] = np.nan
            else:
                row[int(pixels.flat[0])] = 0.9
        return scores


class Rig:
    """One daemon on one root; make another on the same root to start it again."""

    def __init__(
        self,
        root: Path,
        *,
        clock: HandClock | None = None,
        duplicates: Literal["flag", "set-aside"] = "flag",
        max_size: int = 16,
        max_waiting_s: float = MAX_WAIT_S,
        urgent: Sequence[str] = (),
        chores: Callable[[Rig], Sequence[Chore]] = lambda _rig: (),
        subscriptions: Subscriptions = NO_SUBSCRIPTIONS,
        effects: Sequence[Effect] = (),
    ) -> None:
        zone = ZoneInfo("Europe/Athens")
        self.root, self.inbox = root, root / "inbox"
        self.clock = clock or HandClock()
        self.beats_s: list[float] = []  # when the pipeline told of progress within a batch
        self.engine, self.decoder, self.health = TextEngine(), TextDecoder(), HealthTracker()
        self.settings = settings = Settings(root=str(root), state_dir=str(root / "state"))
        folders = settings.folders
        state = root / "state"
        state.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(str(state / "ledger.sqlite3"))
        work = str(root / WORK_FOLDER)
        self.lock = InboxLock(folders.inbox, work, self.ledger.id)
        targets = {level: f"{folders.classified}/{level}" for level in ("High", "Medium", "Low")}
        targets |= {"rejected": folders.rejected, "duplicates": folders.duplicates}
        self.spool = Spool(folders.inbox, work, targets, folders.root)
        if not self.inbox.exists():
            self.spool.make_inbox()
        self.spool.results.make_targets()
        (root / "logs").mkdir(exist_ok=True)
        self.logs = LogFiles(folders.logs, self.ledger)
        self.settling = Settling(SETTLE_S, INCOMPLETE_S)
        self.retries = Retries()
        ready: Future[Engine] = Future()
        ready.set_result(self.engine)
        self.pipeline = build_pipeline(
            ledger=self.ledger,
            spool=self.spool,
            logs=self.logs,
            decoder=self.decoder,
            hands=InlineHands(),
            engine=ready.result,
            scorer=Scorer(self.clock),
            decider=Decider(
                self.ledger,
                self.spool.results,
                settings.risk_rules(),
                CsvLayout(LABELS, zone),
                zone,
            ),
            retries=self.retries,
            duplicates=duplicates,
            give_up_after_s=GIVE_UP_S,
            clock=self.clock,
            zone=zone,
            beat=lambda: self.beats_s.append(self.clock.monotonic_s()),
            effects=(*build_effects(subscriptions, {}), *effects),
        )
        self.waker = Waker()
        inbox = InboxWatch(
            inbox=Inbox(folders.inbox, work, settings.intake.suffixes, settings.intake.ignore),
            wakeup=NoWakeup(),
            lock=self.lock,
            source=self.spool.inbox,
            settling=self.settling,
            retries=self.retries,
            hands=InlineHands(),
            clock=self.clock,
            beat=lambda: None,
        )
        handover = HandoverWatch(self.spool.handover, self.retries, self.clock)
        batching = Batching(max_size, QUIET_S, max_waiting_s, urgent)
        self.arrivals = Arrivals(inbox, handover, batching)
        self.waiting = Waiting(self.retries, self.settling, inbox, GIVE_UP_S)
        summaries = DailySummaries(
            self.ledger,
            f"{folders.logs}/daily",
            60.0,
            zone,
            self.clock,
            lambda: 0,
            subscriptions,
            lambda: self.settling.first_seen_s,
        )
        self.daemon = Daemon(
            arrivals=self.arrivals,
            spool=self.spool,
            pipeline=self.pipeline,
            retries=self.retries,
            engine=ready,
            reporting=Reporting(
                self.health, Heartbeat(str(state / "heartbeat.json"), StatusReport), self.waiting
            ),
            timetable=Timetable(SCAN_S, SETTLE_S, SETTLE_S, GIVE_UP_S, 0, (str(root),)),
            upkeep=Upkeep(summaries, chores(self)),
            waking=Waking(self.clock, self.waker, StopRequest(self.waker)),
        )

    def drop(self, name: str, content: str) -> bytes:
        """Copy a file into the inbox; returns its bytes."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return content.encode()

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass and take one turn."""
        self.clock.passed_s += seconds
        self.daemon.tick(self.clock.monotonic_s())

    def ticks(self, seconds: float, step_s: float = 0.5) -> None:
        """Take turns for a while."""
        for _ in range(round(seconds / step_s)):
            self.tick(step_s)

    def settle(self) -> None:
        """Take turns until what lies there now is filed."""
        self.ticks(SCAN_S + SETTLE_S + QUIET_S + 2)
        while not self.pipeline.is_idle or self.arrivals.has_to_claim or self.open_images:
            self.tick(0.5)

    @property
    def open_images(self) -> int:
        """Images that are claimed and not done."""
        return self.pipeline.open_images

    def records(self) -> list[str]:
        """The inbox paths of what is logged, in order of the indexes."""
        lines = self.ledger.log_lines("results-2026-11-23")
        return [line.jsonl.decode() for line in lines]

    def crash(self) -> None:
        """Let go of everything as a kill would: nothing is finished or written."""
        self.ledger.close()
        self.lock.__exit__()
        self.waker.close()
