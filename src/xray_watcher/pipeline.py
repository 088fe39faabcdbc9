"""One batch from claim to log, top to bottom.

`start` claims files and begins to decode them; `finish` scores, decides, files and logs
the oldest batch. The decoders are at work on the next ones meanwhile, and while it is filed the
network is, too. What a kill interrupts, `recover` takes up at the next start. An error of an image
rejects that image; an error of ours raises `Unavailable`, leaves the images claimed and is tried
again by the daemon.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from typing import Literal, Protocol

import structlog

from xray_watcher import recovering
from xray_watcher.aftermath import aftermath_of
from xray_watcher.core.telling import NOBODY, Audience
from xray_watcher.core.times import local_day, to_us
from xray_watcher.core.values import Arrival, Rejection, Scores
from xray_watcher.errors import Unavailable
from xray_watcher.findings import rejection_of, unreadable
from xray_watcher.intake import doors
from xray_watcher.intake.claims import (
    Barred,
    ChangedAfterClaim,
    Claimed,
    Move,
    NameRefused,
    TargetTaken,
)
from xray_watcher.intake.decoding import Decoded, DecodeOutcome
from xray_watcher.intake.spool import Spool
from xray_watcher.ledger.ledger import Decision, Ledger, NewClaim
from xray_watcher.ledger.reader import ImageRow, LogLine
from xray_watcher.logs import LogFiles
from xray_watcher.model.engine import Engine
from xray_watcher.records import Timings
from xray_watcher.recovering import Decided
from xray_watcher.scoring import Scorer, Scoring
from xray_watcher.sealing import Sealer, Verdict
from xray_watcher.system.clock import Clock

MAX_ATTEMPTS = 8
"""An image that was in hand when the service ended this often is set aside."""

_log = structlog.get_logger()


class Decoder(Protocol):
    """What turns a claimed file into pixels, elsewhere and later."""

    def submit(self, path: str) -> Future[DecodeOutcome]:
        """Begin to decode a file."""
        ...


@dataclass(frozen=True, slots=True)
class _Item:
    """One claimed image on its way.

    `claimed` is None when the file has vanished; `future` is None when it is not decoded.
    """

    row: ImageRow
    claimed: Claimed | None
    future: Future[DecodeOutcome] | None
    queue_ms: float
    file_ms: float


@dataclass(frozen=True, slots=True)
class _Batch:
    id: str
    items: tuple[_Item, ...]

    @property
    def futures(self) -> list[Future[DecodeOutcome]]:
        return [item.future for item in self.items if item.future is not None]

    @property
    def is_sound(self) -> bool:
        """Whether all is decoded, and nothing of ours failed over it."""
        return all(
            future.done() and not future.cancelled() and future.exception() is None
            for future in self.futures
        )


class Pipeline:
    """The way of an image, for one daemon.

    Args:
        ledger: the truth.
        spool: the folders.
        logs: the JSONL and CSV logs.
        decoder: decodes in child processes.
        engine: returns the network; called only when a batch is finished.
        scorer: scores in a thread of its own.
        sealer: turns verdicts into decisions.
        duplicates: "flag" files known bytes by their scores, "set-aside" puts them by unscored.
        clock: the time.
        zone: local time zone; None is the system's.
        beat: is told now and then within a batch that there is progress.
        audience: who wants to hear of images.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands over each part by name
        self,
        *,
        ledger: Ledger,
        spool: Spool,
        logs: LogFiles,
        decoder: Decoder,
        engine: Callable[[], Engine],
        scorer: Scorer,
        sealer: Sealer,
        duplicates: Literal["flag", "set-aside"],
        clock: Clock,
        zone: tzinfo | None,
        beat: Callable[[], None],
        audience: Audience = NOBODY,
    ) -> None:
        self._ledger = ledger
        self._audience = audience
        self._spool = spool
        self._logs = logs
        self._decoder = decoder
        self._engine = engine
        self._scorer = scorer
        self._sealer = sealer
        self.use(duplicates)
        self._clock = clock
        self._zone = zone
        self._beat = beat
        self._batches: deque[_Batch] = deque()
        self._ahead: Scoring | None = None  # of the oldest batch, begun before its turn
        self._decided: deque[Decided] = deque()
        self._again: deque[int] = deque()
        self._unsure: list[int] = []  # claims that failed, perhaps after the rename was done
        self._begun: set[int] = set()  # open images whose attempt in this life is counted
        self.is_in_doubt = False  # a batch has failed, and none been decided since
        self.done = 0
        self.rejected = 0

    def use(self, duplicates: Literal["flag", "set-aside"]) -> None:
        """Treat known bytes in another way from now on."""
        self._sets_duplicates_aside = duplicates == "set-aside"

    @property
    def batches_in_hand(self) -> int:
        """Batches that are claimed and not finished."""
        return len(self._batches)

    @property
    def images_in_hand(self) -> int:
        """Images that are claimed and not done."""
        return (
            sum(len(batch.items) for batch in self._batches) + len(self._decided) + len(self._again)
        )

    @property
    def has_to_repeat(self) -> bool:
        """Whether claimed images wait to be begun again."""
        return bool(self._again)

    @property
    def is_idle(self) -> bool:
        """Whether no image is in hand."""
        return not (self._batches or self._decided or self._again)

    # -- claim and decode -----------------------------------------------------------------

    def start(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Claim files and begin to decode them.

        Returns:
            Those that may not be moved, which lie where they were.

        Raises:
            Unavailable: some could not be claimed; the others are under way.
        """
        began_s = self._clock.monotonic_s()
        ids = self._ledger.begin_claims([self._new_claim(arrival) for arrival in arrivals])
        claims = list(zip(ids, arrivals, strict=True))
        claimed, barred, trouble = self._claim(claims)
        missed = sorted(set(ids).difference(claimed, self._unsure))
        if missed:
            self._drop(missed, claimed)
        if claimed:
            self._confirm([(i, arrival) for i, arrival in claims if i in claimed])
            claim_ms = (self._clock.monotonic_s() - began_s) * 1000 / len(claimed)
            self._begin(claimed, claim_ms)
        if trouble is not None:
            raise trouble
        return barred

    def _drop(self, missed: Sequence[int], claimed: Sequence[int]) -> None:
        """Forget claims that were not made; if that fails, see later which were."""
        try:
            self._ledger.drop_claims(missed)
        except Unavailable:
            self._unsure.extend([*claimed, *missed])
            raise

    def _new_claim(self, arrival: Arrival) -> NewClaim:
        now, now_s = self._clock.now(), self._clock.monotonic_s()
        received = now - timedelta(seconds=now_s - arrival.first_seen_s)
        settled = now - timedelta(seconds=now_s - arrival.settled_s)
        return NewClaim(
            path=os.fsencode(arrival.file.path),
            size=arrival.file.size,
            received_us=to_us(received),
            settled_us=to_us(settled),
            day=local_day(received, self._zone),
            upload=arrival.upload,
        )

    def _claim(
        self, claims: Iterable[tuple[int, Arrival]]
    ) -> tuple[list[int], list[Arrival], Unavailable | None]:
        """Which were claimed, which may not be, and what stopped it before the end."""
        claimed: list[int] = []
        barred: list[Arrival] = []
        for image_id, arrival in claims:
            try:
                if doors.claim(self._spool, arrival, image_id):
                    claimed.append(image_id)
            except Barred:
                barred.append(arrival)
            except Unavailable as error:
                self._unsure.append(image_id)
                return claimed, barred, error
        return claimed, barred, None

    def _confirm(self, claims: Sequence[tuple[int, Arrival]]) -> None:
        try:
            done = [(arrival.file.path, arrival.upload) for _, arrival in claims]
            doors.sync_claims(self._spool, done)
        except Unavailable:
            self._unsure.extend(image_id for image_id, _ in claims)
            raise

    def look_after_unsure_claims(self) -> None:
        """See what has become of claims that failed, once the work folder can be seen again.

        A share that goes away may have done a rename whose answer never came.

        Raises:
            Unavailable: the work folder is out of reach; call it again later.
        """
        if not self._unsure:
            return
        in_work = self._spool.claimed_ids()
        arrived = [image_id for image_id in self._unsure if image_id in in_work]
        self._ledger.drop_claims([i for i in self._unsure if i not in in_work])
        self._ledger.mark_claimed(arrived)
        self._again.extend(arrived)
        self._unsure.clear()

    def start_again(self) -> None:
        """Begin one claimed image again, alone, so that a poisonous one harms no other.

        Call it when no batch is in hand. Its attempts count the lives of the service in which
        it was begun, so trying it again after an error of ours costs it none.
        """
        image_id = self._again[0]
        if image_id not in self._begun:
            self._ledger.count_attempts([image_id])
        self._again.popleft()
        self._begin([image_id], claim_ms=0.0)

    def _begin(self, image_ids: Sequence[int], claim_ms: float) -> None:
        self._begun.update(image_ids)
        try:
            items = tuple(self._item(image_id, claim_ms) for image_id in image_ids)
        except Unavailable:
            self._again.extend(image_ids)
            raise
        self._batches.append(_Batch(f"b{image_ids[0]:06d}", items))

    def _item(self, image_id: int, claim_ms: float) -> _Item:
        self._beat()
        row = self._ledger.image(image_id)
        began_s, queue_us = self._clock.monotonic_s(), to_us(self._clock.now()) - row.settled_us
        claimed = self._spool.examine(image_id)
        examine_ms = (self._clock.monotonic_s() - began_s) * 1000
        is_tried = claimed is not None and row.attempts <= MAX_ATTEMPTS
        future = self._decoder.submit(claimed.path) if claimed is not None and is_tried else None
        return _Item(row, claimed, future, queue_us / 1000, claim_ms + examine_ms)

    def is_decoded(self, wait_s: float) -> bool:
        """Whether the oldest batch is decoded; waits for that many seconds at most."""
        return bool(self._batches) and not wait(self._batches[0].futures, wait_s).not_done

    # -- score and decide -----------------------------------------------------------------

    def finish(self) -> None:
        """Score, decide, file and log the oldest batch, which must be decoded.

        Raises:
            Unavailable: something of ours failed; what is not done stays claimed.
        """
        engine = self._engine()
        batch = self._batches[0]
        try:
            scoring, self._ahead = self._ahead or self._begin_to_score(batch, engine), None
            scores = scoring.wait(self._beat)
            self._score_ahead(engine)
            verdicts = self._judge(batch, scores, scoring.ms_each)
            if verdicts:
                self._decide(verdicts, batch, engine)
        except BaseException:
            ids = [item.row.id for item in batch.items]
            self._again.extend(i for i in ids if i not in self._again)
            self.is_in_doubt = True
            raise
        finally:
            self._batches.popleft()
        self.is_in_doubt = False
        self.complete()

    def _begin_to_score(self, batch: _Batch, engine: Engine) -> Scoring:
        copies = self._copies(batch)
        decoded = {}
        for item in batch.items:
            outcome = item.future.result() if item.future else None
            if isinstance(outcome, Decoded) and item not in copies and not self._obstacle(item):
                decoded[item.row.id] = outcome
        return self._scorer.begin(engine, decoded)

    def _score_ahead(self, engine: Engine) -> None:
        """Keep the network at work on the next batch, if it is decoded, while this one is filed."""
        if len(self._batches) > 1 and self._batches[1].is_sound:
            self._ahead = self._begin_to_score(self._batches[1], engine)

    def _judge(
        self, batch: _Batch, scores: Mapping[int, Scores | Rejection], infer_ms: float
    ) -> list[Verdict]:
        """Find out about each image; those of which nothing is certain are begun again instead."""
        copies = self._copies(batch)
        verdicts = []
        for item in batch.items:
            outcome = finding = None
            if item not in copies and self._is_steady(item):
                outcome = item.future.result() if item.future else None
                finding = self._obstacle(item) or unreadable(outcome) or scores.get(item.row.id)
            if finding is not None:
                verdicts.append(_verdict(item, outcome, finding, infer_ms))
            else:
                self._again.append(item.row.id)
        return verdicts

    def _copies(self, batch: _Batch) -> list[_Item]:
        """Copies to be set aside of images of the same batch: they wait until those are decided."""
        if not self._sets_duplicates_aside:
            return []
        known: set[bytes] = set()
        copies = []
        for item in batch.items:
            if item.claimed is not None and item.claimed.sha256 in known:
                copies.append(item)
            elif item.claimed is not None:
                known.add(item.claimed.sha256)
        return copies

    def _is_steady(self, item: _Item) -> bool:
        return item.claimed is None or self._spool.unchanged(item.claimed)

    def _obstacle(self, item: _Item) -> Rejection | None:
        """Why an image is not even looked at, if so."""
        if item.claimed is None:
            return rejection_of("missing")
        if item.future is None:
            return rejection_of("interrupted")
        if self._sets_duplicates_aside:
            known = self._ledger.classified_index(item.claimed.sha256)
            if known is not None:
                return Rejection("duplicate", f"The same bytes were filed as index {known}.")
        return None

    def _decide(self, verdicts: Sequence[Verdict], batch: _Batch, engine: Engine) -> None:
        sealed = self._sealer.seal(verdicts, batch.id, engine.info, self._clock.now())
        self._ledger.decide(sealed.decisions, sealed.csv_header, sealed.retried)
        claimed = {item.row.id: item.claimed for item in batch.items}
        self._decided.extend(_decided(d, claimed[d.image_id]) for d in sealed.decisions)

    # -- file and log ---------------------------------------------------------------------

    def complete(self) -> None:
        """File, log and finish every decided image, in the order of the indexes.

        Raises:
            Unavailable: a folder or log cannot be written; the rest waits for another try.
        """
        filed: list[Decided] = []
        try:
            while self._decided:
                self._beat()
                if self._is_filed(self._decided[0]):
                    filed.append(self._decided[0])
                self._decided.popleft()
        finally:
            if filed:
                self._log_and_finish(filed)

    def _is_filed(self, decided: Decided) -> bool:
        """File one image; an image that cannot be filed as decided is decided anew."""
        try:
            if decided.move is not None:
                self._spool.file(decided.move)
                if decided.move.with_reason:
                    self._spool.write_beside(decided.move, decided.line.jsonl)
        except (TargetTaken, NameRefused, ChangedAfterClaim, FileNotFoundError) as reason:
            _log.warning("an image is decided anew", index=decided.line.idx, reason=repr(reason))
            self._ledger.withdraw(decided.image_id)
            self._again.append(decided.image_id)
            if isinstance(reason, NameRefused):
                self._sealer.name_plainly(decided.image_id)
            return False
        return True

    def _log_and_finish(self, filed: Sequence[Decided]) -> None:
        try:
            self._spool.sync_filed([d.move.folder for d in filed if d.move is not None])
            now = self._clock.now()
            states, conflicts = self._logs.append([d.line for d in filed], now)
            after = aftermath_of([d.line for d in filed], now, self._audience)
            ids = [d.image_id for d in filed]
            self._ledger.finish(ids, to_us(now), states, after.tally, after.notices)
        except BaseException:
            self._decided.extendleft(reversed(filed))  # filing again finds them filed
            raise
        for conflict in conflicts:
            _log.error("a log was changed by somebody; theirs is kept", kept=conflict.path)
        rejected = sum(d.outcome == "rejected" for d in filed)
        self._begun.difference_update(d.image_id for d in filed)
        self.done += len(filed)
        self.rejected += rejected
        _log.info("filed", images=len(filed), rejected=rejected, last_index=filed[-1].line.idx)

    # -- recovery -------------------------------------------------------------------------

    def recover(self) -> None:
        """Take up what an earlier run left open; costs as much as there are open images.

        What it takes up is carried on by `start_again` and `complete`.

        Raises:
            Unavailable: the work folder or the ledger is out of reach; call it again later.
        """
        left = recovering.take_up(self._ledger, self._spool, self._clock.now(), self._zone)
        self._again.extend(left.claimed)
        self._decided.extend(left.decided)


def _verdict(
    item: _Item, outcome: DecodeOutcome | None, finding: Scores | Rejection, infer_ms: float
) -> Verdict:
    image = outcome.image if isinstance(outcome, Decoded) else None
    return Verdict(
        row=item.row,
        size=item.row.size if item.claimed is None else item.claimed.signature.size,
        sha256=None if item.claimed is None else item.claimed.sha256,
        width=None if image is None else image.width,
        height=None if image is None else image.height,
        has_low_contrast=image is not None and image.has_low_contrast,
        timings=Timings(
            settle=(item.row.settled_us - item.row.received_us) / 1000,
            queue=item.queue_ms,
            decode=0.0 if outcome is None else outcome.seconds * 1000,
            infer=infer_ms if isinstance(finding, Scores) else 0.0,
            file=item.file_ms,
        ),
        finding=finding,
    )


def _decided(decision: Decision, claimed: Claimed | None) -> Decided:
    line = LogLine(decision.idx, decision.log, decision.jsonl, decision.csv)
    move = None
    if decision.folder and decision.filed_name and claimed is not None:
        move = Move(
            decision.image_id,
            decision.folder,
            decision.filed_name,
            claimed.sha256,
            claimed.signature,
            with_reason=decision.outcome == "rejected",
        )
    return Decided(decision.image_id, move, line, decision.outcome)
