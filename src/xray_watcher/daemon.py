"""The life of the daemon: recover, one turn after the other, drain, stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from xray_watcher.core.batching import Batching
from xray_watcher.core.health import Health
from xray_watcher.core.settling import Settling
from xray_watcher.core.values import Arrival
from xray_watcher.errors import Unavailable
from xray_watcher.heartbeat import Heartbeat
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.watcher import Inbox, Look, NoWakeup, Wakeup
from xray_watcher.model.engine import Engine
from xray_watcher.pipeline import Pipeline
from xray_watcher.reloading import NoReloading, Reloading
from xray_watcher.reports.daily import DailySummaries
from xray_watcher.system.clock import Clock
from xray_watcher.system.disks import free_bytes
from xray_watcher.system.lock import InboxLock
from xray_watcher.system.signals import Bell, StopRequest

MAX_BATCHES_IN_HAND = 3
"""One is scored and filed, one is decoded, and the decoders go on with one while disks are slow."""

DRAIN_S = 8.0
"""After a signal, work in hand is given this long; then it is left for the next start."""

_DECODE_WAIT_S = 0.2  # how long one turn waits for the decoders before it looks around again
_NEEDED_TO_CLAIM = frozenset({"inbox", "disk"})
_LOOK_GAP_S = 0.2  # events may come in thousands; looks do not
_LOOK_GAP_MOST_S = 30.0  # also after a look that hung for an hour
_LOOK_SHARE = 4  # of the time that a look took, at least this much passes until the next

_log = structlog.get_logger()


class Watching(Protocol):
    """Told after each turn how far things are: a progress bar, or nothing."""

    def __call__(self, done: int, left: int) -> None:
        """Show `done` images and `left` that are known to wait."""
        ...


class Chore(Protocol):
    """Something that is done beside the images and keeps none of them from its way.

    Attributes:
        unit: its name in `status` when it is out of order.
    """

    unit: str

    @property
    def next_due_s(self) -> float:
        """When there is something to do, on the monotonic clock."""
        ...

    def refresh(self, now_s: float) -> None:
        """Do what is due.

        Raises:
            Unavailable: it cannot be done now; it is tried again.
        """
        ...

    def stop(self) -> None:
        """Leave things in order: the daemon ends."""
        ...


@dataclass(frozen=True, slots=True)
class Timetable:
    """When the daemon looks.

    Attributes:
        scan_s: seconds between looks at the inbox when nothing else calls for one.
        settle_s: seconds without change after which a file in a local inbox is complete.
        network_settle_s: the same on a share.
        min_free_bytes: below this on any of `disks` nothing more is claimed.
        disks: folders on the file systems that are written to.
    """

    scan_s: float
    settle_s: float
    network_settle_s: float
    min_free_bytes: int
    disks: Sequence[str]


class Daemon:
    """Watches the inbox until it is told to stop.

    Args:
        inbox: looked at.
        wakeup: makes looks come sooner.
        lock: keeps other daemons off the inbox; taken when the inbox is in reach.
        spool: asked whether a settled file may be claimed.
        settling: which files are complete.
        batching: when a batch is ready.
        pipeline: the way of an image.
        engine: the network, being loaded in another thread.
        summaries: the daily figures.
        health: what is out of order.
        heartbeat: tells `status` how things are.
        timetable: when to look.
        chores: done in each turn, after the images.
        clock: the time.
        bell: what the loop sleeps on.
        stop: whether to end.
        reloading: reads the configuration anew when that is asked for.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands over each part by name
        self,
        *,
        inbox: Inbox,
        wakeup: Wakeup | NoWakeup,
        lock: InboxLock,
        spool: Spool,
        settling: Settling,
        batching: Batching,
        pipeline: Pipeline,
        engine: Future[Engine],
        summaries: DailySummaries,
        health: Health,
        heartbeat: Heartbeat,
        timetable: Timetable,
        chores: Sequence[Chore] = (),
        clock: Clock,
        bell: Bell,
        stop: StopRequest,
        reloading: Reloading | NoReloading | None = None,
    ) -> None:
        self._inbox = inbox
        self._wakeup = wakeup
        self._lock = lock
        self._spool = spool
        self._settling = settling
        self._batching = batching
        self._pipeline = pipeline
        self._engine = engine
        self._summaries = summaries
        self._health = health
        self._heartbeat = heartbeat
        self._timetable = timetable
        self._chores = chores
        self._clock = clock
        self._bell = bell
        self._stop = stop
        self._reloading = reloading or NoReloading()
        self._last_look_s = float("-inf")
        self._look_gap_s = 0.0
        self._is_look_wanted = True
        self._is_recovered = False
        self._is_refused = False  # and nothing has been claimed since
        self.ignored = 0

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
            _log.info("watching")
            while not self._stop and not (once and self._is_over):
                self.tick(self._clock.monotonic_s())
                if watching is not None:
                    watching(self._pipeline.done, self.known_left)
                self._nap()
            self._drain()
        if once:
            for cause in self._of_images:
                raise Unavailable(cause, self._health.troubles[cause].detail)

    @property
    def _is_over(self) -> bool:
        return self.is_finished or bool(self._ours)

    @property
    def _ours(self) -> list[str]:
        """What keeps all images from their way; single files that may not be taken do not."""
        return [cause for cause in self._of_images if cause != "files"]

    @property
    def _of_images(self) -> list[str]:
        """What keeps some image from its way; a chore that fails does not."""
        chores = {chore.unit for chore in self._chores}
        return [cause for cause in self._health.troubles if cause not in chores]

    def tick(self, now_s: float) -> None:
        """One turn of the loop; `now_s` is given so that tests hold the clock."""
        self._reload()
        self._attempt("inbox", self._look, now_s)
        self._attempt("uploads", self._look_at_uploads, now_s)
        self._attempt("disk", self._check_disks, now_s)
        self._attempt("work", self._work, now_s)
        self._attempt("files", self._check_barred, now_s)
        self._attempt("summary", self._summaries.refresh, now_s)
        for chore in self._chores:
            if chore.next_due_s <= now_s or chore.unit in self._health.troubles:
                self._attempt(chore.unit, chore.refresh, now_s)
        self._heartbeat.beat(now_s)

    def use(self, timetable: Timetable) -> None:
        """Look at other times from now on; the disks stay, as the folders do until a restart."""
        self._timetable = replace(timetable, disks=self._timetable.disks)

    @property
    def is_ready(self) -> bool:
        """Whether the network is there and what an earlier run left open is taken up.

        A service that cannot take it up yet, because something is out of reach, is ready too: it
        waits, says so, and goes on by itself.
        """
        return self._has_engine and (self._is_recovered or bool(self._health.troubles))

    @property
    def _has_engine(self) -> bool:
        """Without it an image would be begun in vain, and in the end be blamed for that."""
        return self._engine.done() and self._engine.exception() is None

    @property
    def reloads(self) -> int:
        """How often the configuration was read anew, with or without success."""
        return self._reloading.count

    @property
    def known_left(self) -> int:
        """Images that are known to be there and not filed."""
        return len(self._settling) + len(self._spool.uploads) + self._pipeline.images_in_hand

    @property
    def done(self) -> int:
        """Images that were filed since the start, those that were set aside included."""
        return self._pipeline.done

    @property
    def rejected(self) -> int:
        """Images that were set aside since the start."""
        return self._pipeline.rejected

    @property
    def is_finished(self) -> bool:
        """Whether everything that can be filed now is filed, and two looks found no more."""
        return (
            self._pipeline.is_idle
            and not self._has_to_claim
            and self._is_recovered
            and not self._ours
        )

    def _drain(self) -> None:
        """Finish the batches in hand; what takes too long is taken up at the next start."""
        until_s = self._clock.monotonic_s() + DRAIN_S
        _log.info("stopping", batches_in_hand=self._pipeline.batches_in_hand)
        while self._engine.done() and self._pipeline.batches_in_hand:
            now_s = self._clock.monotonic_s()
            if now_s > until_s or "work" in self._health.troubles:
                break
            self._attempt("work", self._finish_decoded, now_s)
        self._wakeup.close()
        self._attempt("summary", lambda _now_s: self._summaries.write(), self._clock.monotonic_s())
        for chore in self._chores:
            chore.stop()
        self._heartbeat.stop()
        _log.info("stopped", images=self._pipeline.done)

    def _nap(self) -> None:
        """Sleep until the next thing is due, or the bell rings."""
        if not self._engine.done():
            self._bell.wait(_DECODE_WAIT_S)
            return
        if not self._pipeline.is_idle and "work" not in self._health.troubles:
            return
        if self._bell.wait(self._next_due_s() - self._clock.monotonic_s()):
            self._is_look_wanted = True

    def _next_due_s(self) -> float:
        """When there is something to do; what is in trouble is due at its next try."""
        troubles = self._health.troubles
        dues = [self._health.next_retry_s(), self._heartbeat.next_due_s]
        if "inbox" not in troubles:
            dues.append(self._look_due_s())
        if "summary" not in troubles:
            dues.append(self._summaries.next_due_s)
        dues += [chore.next_due_s for chore in self._chores if chore.unit not in troubles]
        if self._may_claim and "work" not in troubles:
            dues.append(self._batching.next_due_s())
        return min(due for due in dues if due is not None)

    @property
    def _may_claim(self) -> bool:
        return self._is_recovered and self._health.troubles.keys().isdisjoint(_NEEDED_TO_CLAIM)

    # -- one turn -------------------------------------------------------------------------

    def _reload(self) -> None:
        """Between two batches, so that none is decided by two configurations."""
        if not self._reloading.is_wanted or self._pipeline.batches_in_hand:
            return
        if (problem := self._reloading.carry_out()) is not None:
            self._health.last_error = problem
        self._heartbeat.hurry()

    def _attempt(self, unit: str, step: Callable[[float], None], now_s: float) -> None:
        """Do one unit of work; if something of ours is out of reach, back off and say so."""
        if not self._health.may_try(unit, now_s):
            return
        try:
            step(now_s)
        except Unavailable as error:
            if self._health.failed(unit, error.detail, now_s):
                _log.error("degraded", unit=unit, cause=error.cause, detail=error.detail)
        else:
            if unit == "work" and (self._is_refused or self._pipeline.is_in_doubt):
                self._health.try_soon(unit, now_s)  # what had failed was not done, nor failed, yet
            elif self._health.recovered(unit):
                _log.info("recovered", unit=unit)

    def _look(self, now_s: float) -> None:
        if now_s < self._look_due_s() and "inbox" not in self._health.troubles:
            return
        began_s = self._clock.monotonic_s()
        self._is_look_wanted = False
        self._last_look_s = now_s
        look = self._looked()
        self._lock.take()  # on what is known to be the inbox: it writes a note there
        self._wakeup.keep_alive()
        self.ignored = look.ignored
        times = self._timetable
        self._settling.settle_s = times.network_settle_s if look.is_network else times.settle_s
        self._settling.observe(look.files, now_s)
        took_s = self._clock.monotonic_s() - began_s
        self._look_gap_s = min(max(_LOOK_GAP_S, _LOOK_SHARE * took_s), _LOOK_GAP_MOST_S)

    def _looked(self) -> Look:
        try:
            return self._inbox.look()
        except Unavailable:
            self._lock.release()
            raise

    def _look_at_uploads(self, now_s: float) -> None:
        """Costs one listing of a folder of our own; the bell rings when something was put there."""
        if "inbox" not in self._health.troubles:
            self._batching.add(self._spool.uploads.look(now_s), now_s)

    def _look_due_s(self) -> float:
        if self._is_look_wanted:
            wanted_s = self._last_look_s
        else:
            settles_s = self._settling.next_due_s()
            regular_s = self._last_look_s + self._timetable.scan_s
            wanted_s = regular_s if settles_s is None else min(settles_s, regular_s)
        return max(wanted_s, self._last_look_s + self._look_gap_s)

    def _check_disks(self, _now_s: float) -> None:
        """Stop claiming before a disk is full: what is claimed must still find room."""
        for folder in self._timetable.disks:
            try:
                free = free_bytes(folder)
            except Unavailable:
                self._spool.keep_targets()
                free = free_bytes(folder)
            if free < self._timetable.min_free_bytes:
                raise Unavailable(
                    "disk",
                    f"Only {free / 1e6:.0f} MB are free under {folder}; nothing is claimed below "
                    f"{self._timetable.min_free_bytes / 1e6:.0f} MB (intake.min_free_bytes).",
                )

    def _check_barred(self, _now_s: float) -> None:
        """Tell of files that may not be taken; all others go their way."""
        if count := self._settling.barred:
            raise Unavailable(
                "files",
                f"{count} of the files in the inbox may not be read or moved by this user, or "
                "other programs keep them for themselves; the others are filed.",
            )

    def _work(self, now_s: float) -> None:
        self._recover()
        self._pipeline.look_after_unsure_claims()
        self._pipeline.complete()
        try:
            self._start_batches(now_s)
        finally:  # what is claimed goes on, whatever becomes of the rest
            self._finish_decoded(now_s)
        self._is_refused = self._is_refused and self._has_to_claim

    @property
    def _has_to_claim(self) -> bool:
        settling = self._settling.waiting - self._settling.unfinished - self._settling.barred
        return bool(settling > 0 or len(self._batching) or len(self._spool.uploads))

    def _recover(self) -> None:
        """Take up what an earlier run left open, once its folders are in reach."""
        if not self._is_recovered and "inbox" not in self._health.troubles:
            self._pipeline.recover()
            self._is_recovered = True

    def _finish_decoded(self, _now_s: float) -> None:
        if not self._engine.done():
            return
        self._engine.result()  # a network that cannot be loaded ends the service here
        if self._pipeline.is_decoded(_DECODE_WAIT_S):
            self._pipeline.finish()

    def _start_batches(self, now_s: float) -> None:
        """As many as may be in hand, so that the next is decoded while the oldest is scored."""
        before = -1
        while before < self._pipeline.batches_in_hand < MAX_BATCHES_IN_HAND:
            before = self._pipeline.batches_in_hand
            self._start_batch(now_s)

    def _start_batch(self, now_s: float) -> None:
        if self._reloading.is_wanted:
            return
        self._batching.add(self._settling.due(now_s), now_s)
        if self._pipeline.has_to_repeat:
            if not self._pipeline.batches_in_hand and self._has_engine:
                self._pipeline.start_again()
        elif self._may_claim:
            self._claim(self._batching.take(now_s), now_s)

    def _claim(self, batch: Sequence[Arrival], now_s: float) -> None:
        try:
            ready = [arrival for arrival in batch if self._is_ready(arrival, now_s)]
            barred = self._pipeline.start(ready) if ready else []
            self._is_refused = self._is_refused and not ready
        except Unavailable:
            self._is_refused = True
            # Those that were claimed are gone at the next look.
            self._spool.uploads.offer_again(a.upload for a in batch if a.upload is not None)
            for arrival in batch:
                if arrival.upload is None:
                    self._settling.postpone(arrival.file.path, now_s)
            raise
        for arrival in ready:
            if arrival in barred:
                self._settling.hold_barred(arrival.file.path, now_s)
            elif arrival.upload is None:
                self._settling.forget(arrival.file.path)

    def _is_ready(self, arrival: Arrival, now_s: float) -> bool:
        """Whether a settled file may be claimed; one that may not goes on being watched."""
        if arrival.upload is not None:
            return True
        path = arrival.file.path
        readiness = self._spool.readiness(arrival.file, overdue=arrival.overdue)
        if readiness == "unfinished":
            self._settling.hold_unfinished(path)
        elif readiness == "gone":
            self._settling.forget(path)
        elif readiness == "barred":
            self._settling.hold_barred(path, now_s)
        elif readiness != "ready":
            self._settling.postpone(path, now_s)
        return readiness == "ready"
