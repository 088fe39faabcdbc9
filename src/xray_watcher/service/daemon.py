"""The life of the daemon: recover, one turn after the other, drain, stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import structlog

from xray_watcher.core.health import HealthTracker
from xray_watcher.core.retries import COMPONENTS, FILES, Retries
from xray_watcher.errors import Unavailable
from xray_watcher.intake.arrivals import Arrivals
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.waiting import Waiting
from xray_watcher.model.engine import Engine
from xray_watcher.pipeline.pipeline import MOST_LATE, Pipeline
from xray_watcher.reports.daily import DailySummaries
from xray_watcher.service.chores import Chore
from xray_watcher.service.heartbeat import Heartbeat
from xray_watcher.system.clock import Clock
from xray_watcher.system.disks import free_bytes
from xray_watcher.system.signals import StopRequest, Waker

MAX_OPEN_BATCHES = 3
"""One is scored and filed, one is decoded, and the decoders go on with one while disks are slow."""

DRAIN_S = 8.0
"""After a signal, open batches are given this long; then the next start takes them up."""

_DECODE_WAIT_S = 0.2  # how long one turn waits for the decoders before it looks around again
_NEEDED_TO_CLAIM = frozenset({"inbox", "disk"})
_MOST_UNDECIDED = 16  # images that neither decoder nor network could deal with
_NOTE_S = 1.0  # how often the problems of single files are collected
_TRIES_WITH_ONCE = 3  # after these a run that ends by itself leaves an image for the next

_log = structlog.get_logger()


class Watching(Protocol):
    """Called after each turn: shows a progress bar, or nothing."""

    def __call__(self, done: int, left: int) -> None:
        """Show `done` images and `left` that are known to wait."""
        ...


@dataclass(frozen=True, slots=True)
class Timetable:
    """When the daemon looks.

    Attributes:
        scan_s: seconds between looks at the inbox when nothing else calls for one.
        settle_s: seconds without change after which a file in a local inbox is complete.
        network_settle_s: the same on a share.
        give_up_after_s: after so long a file that cannot be read is rejected.
        min_free_bytes: below this on any of `disks` nothing more is claimed.
        disks: folders on the file systems that are written to.
    """

    scan_s: float
    settle_s: float
    network_settle_s: float
    give_up_after_s: float
    min_free_bytes: int
    disks: Sequence[str]


@dataclass(frozen=True, slots=True)
class Reporting:
    """What is degraded, what writes the report for `status`, and what knows why files wait."""

    health: HealthTracker
    heartbeat: Heartbeat
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What is done in each turn, after the images: the daily figures, and everything else."""

    summaries: DailySummaries
    chores: Sequence[Chore] = ()


@dataclass(frozen=True, slots=True)
class Waking:
    """The time, what the loop sleeps on, and whether to end."""

    clock: Clock
    waker: Waker
    stop: StopRequest


class Daemon:
    """Watches the inbox until a signal comes.

    Args:
        arrivals: what has come and is not claimed.
        spool: keeps the folders of the results.
        pipeline: the way of an image.
        retries: the images that are tried again.
        engine: the network, being loaded in another thread.
        reporting: reports its state.
        timetable: when to look.
        upkeep: done in each turn, after the images.
        waking: the time, and what ends a sleep.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands over each part by name
        self,
        *,
        arrivals: Arrivals,
        spool: Spool,
        pipeline: Pipeline,
        retries: Retries,
        engine: Future[Engine],
        reporting: Reporting,
        timetable: Timetable,
        upkeep: Upkeep,
        waking: Waking,
    ) -> None:
        self._arrivals = arrivals
        self._spool = spool
        self._pipeline = pipeline
        self._retries = retries
        self._engine = engine
        self._health, self._heartbeat = reporting.health, reporting.heartbeat
        self._waiting = reporting.waiting
        self._summaries, self._chores = upkeep.summaries, upkeep.chores
        self._clock, self._waker, self._stop = waking.clock, waking.waker, waking.stop
        self._timetable = timetable
        self._is_recovered = False
        self._next_note_s = float("-inf")
        arrivals.inbox.scan_s = timetable.scan_s
        arrivals.inbox.settle_s = (timetable.settle_s, timetable.network_settle_s)
        arrivals.give_up_after(timetable.give_up_after_s)

    # -- the life -------------------------------------------------------------------------

    def run(self, *, once: bool = False, watching: Watching | None = None) -> None:
        """Work until a signal comes, or with `once` until all that lies in the inbox is filed.

        Raises:
            WeightsError: the network could not be loaded.
            AlreadyRunning: another daemon has taken the inbox while it was out of reach.
            StorageFailure: a disk did not confirm a write.
            Unavailable: with `once`, something is out of reach; otherwise that is waited for.
        """
        with self._stop.on_signals():
            _log.info("watching", code="watching")
            while not self._stop and not (once and self._is_over):
                self.tick(self._clock.monotonic_s())
                if watching is not None:
                    watching(self._pipeline.done, self.known_left)
                self._nap()
            self._drain()
        if once:
            for task in self._ours:
                raise Unavailable(task, self._health.problems[task].reason)

    @property
    def _is_over(self) -> bool:
        return self.is_finished or bool(self._ours)

    @property
    def _ours(self) -> list[str]:
        """What keeps all images from their way; single files and chores do not."""
        others = {chore.component for chore in self._chores} | {FILES}
        return [
            task
            for task in self._health.problems
            if task not in others and not self._has_next_try(task)
        ]

    def _has_next_try(self, component: str) -> bool:
        """Whether images that a component failed over are tried again in this run."""
        return component in COMPONENTS.values() and any(
            COMPONENTS.get(retry.reason.code) == component and retry.tries < _TRIES_WITH_ONCE
            for _, retry in self._retries.failures()
            if retry.reason is not None
        )

    def tick(self, now_s: float) -> None:
        """One turn of the loop; `now_s` is given so that tests hold the clock."""
        self._attempt("inbox", self._look, now_s)
        self._attempt("uploads", self._scan_handover, now_s)
        self._attempt("disk", self._check_disks, now_s)
        self._attempt("work", self._work, now_s)
        self._note_file_problems(now_s)
        self._attempt("summary", self._summaries.refresh, now_s)
        for chore in self._chores:
            if chore.next_due_s <= now_s or chore.component in self._health.problems:
                self._attempt(chore.component, chore.refresh, now_s)
        self._heartbeat.beat(now_s)

    @property
    def is_ready(self) -> bool:
        """Whether the network is there and what an earlier run left open is taken up.

        A service that cannot take it up yet, because something is out of reach, is ready too: it
        waits, says so, and goes on by itself.
        """
        return self._has_engine and (self._is_recovered or bool(self._health.problems))

    @property
    def _has_engine(self) -> bool:
        """Without it an image would use up its attempts, and be rejected in the end."""
        return self._engine.done() and self._engine.exception() is None

    @property
    def known_left(self) -> int:
        """Images that are known to be there and not filed."""
        return len(self._arrivals) + self._pipeline.open_images

    @property
    def left(self) -> dict[str, int]:
        """How many images are left where they are, by what they wait for."""
        return self._waiting.left()

    @property
    def ignored(self) -> int:
        """Entries of the inbox that are left alone."""
        return self._arrivals.inbox.ignored

    @property
    def done(self) -> int:
        """Images that were filed since the start, the rejected ones included."""
        return self._pipeline.done

    @property
    def rejected(self) -> int:
        """Images that were rejected since the start."""
        return self._pipeline.rejected

    @property
    def is_finished(self) -> bool:
        """Whether everything that can be filed now is filed, and two looks found no more."""
        return (
            self._pipeline.is_idle
            and not self._arrivals.has_to_claim
            and not self._has_to_try
            and self._is_recovered
            and not self._ours
        )

    @property
    def _has_to_try(self) -> bool:
        """Whether a claimed image is tried again in a run that ends by itself."""
        claimed = self._retries.waiting("claimed").values()
        return any(retry.tries < _TRIES_WITH_ONCE for retry in claimed)

    def _drain(self) -> None:
        """Finish the open batches; the next start takes up what lasts too long."""
        until_s = self._clock.monotonic_s() + DRAIN_S
        batches = self._pipeline.open_batches
        if self._heartbeat.is_reloading:
            _log.info("reloading: another process goes on", code="draining", batches=batches)
        else:
            _log.info("stopping", code="stopping", batches=batches)
        while self._engine.done() and self._pipeline.open_batches:
            now_s = self._clock.monotonic_s()
            if now_s > until_s or "work" in self._health.problems:
                break
            self._attempt("work", self._finish_decoded, now_s)
        self._arrivals.inbox.close()
        self._spool.clear_left()
        self._attempt("summary", lambda _now_s: self._summaries.write(), self._clock.monotonic_s())
        for chore in self._chores:
            chore.stop()
        self._heartbeat.stop()
        if not self._heartbeat.is_reloading:
            _log.info("stopped", code="stopped", images=self._pipeline.done)

    def _nap(self) -> None:
        """Sleep until the next thing is due, or something wakes it."""
        if not self._engine.done():
            self._waker.wait(_DECODE_WAIT_S)
            return
        if "work" not in self._health.problems:
            if self._pipeline.open_batches:
                return
            if not self._pipeline.is_idle:  # files that do not answer
                self._waker.wait(_DECODE_WAIT_S)
                return
        if self._waker.wait(self._next_due_s() - self._clock.monotonic_s()):
            self._arrivals.inbox.wake()

    def _next_due_s(self) -> float:
        """When there is something to do; a degraded component is due at its next try."""
        problems = self._health.problems
        dues = [self._health.next_retry_s(), self._heartbeat.next_due_s]
        if "inbox" not in problems:
            dues.append(self._arrivals.inbox.next_scan_s)
        if "summary" not in problems:
            dues.append(self._summaries.next_due_s)
        dues += [chore.next_due_s for chore in self._chores if chore.component not in problems]
        if "work" not in problems:
            dues.append(self._retries.next_due_s("claimed"))
            if self._may_claim:
                dues.append(self._arrivals.next_batch_s())
        return min(due for due in dues if due is not None)

    @property
    def _may_claim(self) -> bool:
        return (
            self._is_recovered
            and self._health.problems.keys().isdisjoint(_NEEDED_TO_CLAIM)
            and self._pipeline.batches.late < MOST_LATE
            and self._undecided < _MOST_UNDECIDED
        )

    @property
    def _undecided(self) -> int:
        """Claimed images that neither decoder nor network could deal with; they wait."""
        return sum(
            retry.reason is not None and retry.reason.code in COMPONENTS
            for retry in self._retries.waiting("claimed").values()
        )

    # -- one turn -------------------------------------------------------------------------

    def _attempt(self, task: str, step: Callable[[float], None], now_s: float) -> None:
        """Do one task; if something of ours is out of reach, back off and say so."""
        if not self._health.may_try(task, now_s):
            return
        try:
            step(now_s)
        except Unavailable as error:
            if self._health.failed(task, error.reason, now_s, error.component):
                _log.error(
                    "degraded", code="degraded", component=error.component, reason=error.reason
                )
        else:
            component = self._health.recovered(task)
            if component is not None:
                _log.info("recovered", code="recovered", component=component)

    def _look(self, now_s: float) -> None:
        self._arrivals.inbox.look(now_s, is_late="inbox" in self._health.problems)

    def _scan_handover(self, now_s: float) -> None:
        if "inbox" not in self._health.problems:
            self._arrivals.look_at_handover(now_s)

    def _check_disks(self, _now_s: float) -> None:
        """Stop claiming before a disk is full: what is claimed must still find room."""
        for folder in self._timetable.disks:
            try:
                free = free_bytes(folder)
            except Unavailable:
                self._spool.results.keep_targets()
                free = free_bytes(folder)
            if free < self._timetable.min_free_bytes:
                raise Unavailable(
                    "disk",
                    f"Only {free / 1e6:.0f} MB are free under {folder}; nothing is claimed below "
                    f"{self._timetable.min_free_bytes / 1e6:.0f} MB (intake.min_free_bytes).",
                )

    def _note_file_problems(self, now_s: float) -> None:
        """Report why single files wait; all others are filed."""
        if now_s < self._next_note_s:
            return
        self._next_note_s = now_s + _NOTE_S
        self._spool.clear_left()
        for component, detail in self._waiting.problems(now_s).items():
            if detail is not None and self._health.note(component, detail, now_s):
                _log.warning("degraded", code="files_degraded", component=component, reason=detail)
            elif detail is None and self._health.recovered(component):
                _log.info("recovered", code="files_recovered", component=component)

    def _work(self, now_s: float) -> None:
        self._recover()
        self._arrivals.put_back(self._pipeline.batches.clear_up_claims())
        self._pipeline.complete()
        try:
            self._start_batches(now_s)
        finally:  # what is claimed goes on, whatever becomes of the rest
            self._finish_decoded(now_s)

    def _recover(self) -> None:
        """Take up what an earlier run left open, once its folders are in reach."""
        if not self._is_recovered and "inbox" not in self._health.problems:
            self._pipeline.recover()
            self._is_recovered = True

    def _finish_decoded(self, _now_s: float) -> None:
        if not self._engine.done():
            return
        self._engine.result()  # a network that cannot be loaded ends the service here
        if self._pipeline.batches.is_decoded(_DECODE_WAIT_S):
            self._pipeline.finish()

    def _start_batches(self, now_s: float) -> None:
        """Claim as many batches as may be open: the next is decoded while the oldest is scored."""
        if "inbox" in self._health.problems:
            return
        if self._has_engine and self._pipeline.batches.start_due(now_s):
            return
        before = -1
        while before < self._pipeline.open_batches < MAX_OPEN_BATCHES and self._may_claim:
            before = self._pipeline.open_batches
            self._claim(now_s)

    def _claim(self, now_s: float) -> None:
        is_pressed = self._arrivals.is_pressed
        ready = self._arrivals.gather(now_s)
        if not ready:
            return
        held = self._pipeline.batches.start(ready, is_pressed=is_pressed)
        for arrival, reason in held:
            self._arrivals.hold(arrival, reason, now_s)
        not_claimed = {arrival for arrival, _ in held}
        self._arrivals.note_claimed([each for each in ready if each not in not_claimed])
