"""One batch from claim to log, top to bottom.

`start` claims files and begins to decode them; `finish` scores, decides, files and logs
the oldest batch. The decoders are at work on the next ones meanwhile, and while it is filed the
network is, too. What a kill interrupts, `recover` takes up at the next start.

What one file does costs that file alone: it waits in the table of retries for its next try. An
error of ours raises `Unavailable`; the same step is then the first of the next turn.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from functools import partial
from typing import Literal

import structlog

from xray_watcher import recovering
from xray_watcher.aftermath import aftermath_of
from xray_watcher.claiming import Claims
from xray_watcher.core.retries import GIVEN_UP, Key, Reason, Retries, Retry
from xray_watcher.core.telling import NOBODY, Audience
from xray_watcher.core.times import to_us
from xray_watcher.core.values import Arrival, Rejection, Scores
from xray_watcher.errors import Unavailable
from xray_watcher.findings import given_up, rejection_of, too_large, unreadable
from xray_watcher.in_hand import (
    Batch,
    Decided,
    Decoder,
    Found,
    Item,
    decided_of,
    examined_by,
    verdict_of,
)
from xray_watcher.intake.claims import ChangedAfterClaim, FileTrouble, NameRefused, TargetTaken
from xray_watcher.intake.decoding import Decoded
from xray_watcher.intake.spool import Spool
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.logs import LogFiles
from xray_watcher.model.engine import Engine
from xray_watcher.scoring import Scorer, Scoring
from xray_watcher.sealing import Sealer, Verdict
from xray_watcher.system.clock import Clock
from xray_watcher.system.hands import Hands

MAX_ATTEMPTS = 8
"""An image that was in hand when the service ended this often is set aside."""

MOST_LATE = 16
"""With so many images whose files do not answer, nothing more is claimed."""

_LATE_S = 3.0  # so long a batch waits for files while none of them gets any further
_LATE_ALONE_S = 30.0  # the same when nobody is held up by that
_log = structlog.get_logger()


class Pipeline:
    """The way of an image, for one daemon.

    Args:
        ledger: the truth.
        spool: the folders.
        logs: the JSONL and CSV logs.
        decoder: decodes in child processes.
        hands: reads claimed files, which may never answer.
        engine: returns the network; called only when a batch is finished.
        scorer: scores in a thread of its own.
        sealer: turns verdicts into decisions.
        retries: the images that are tried again.
        duplicates: "flag" files known bytes by their scores, "set-aside" puts them by unscored.
        give_up_after_s: after so long an image that cannot be read is rejected.
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
        hands: Hands,
        engine: Callable[[], Engine],
        scorer: Scorer,
        sealer: Sealer,
        retries: Retries,
        duplicates: Literal["flag", "set-aside"],
        give_up_after_s: float,
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
        self._hands = hands
        self._engine = engine
        self._scorer = scorer
        self._sealer = sealer
        self._retries = retries
        self._sets_duplicates_aside = duplicates == "set-aside"
        self._give_up_after_s = give_up_after_s
        self._clock = clock
        self._zone = zone
        self._beat = beat
        self._batches: deque[Batch] = deque()
        self._late: list[Item] = []  # their files do not answer; their batches went on
        self._ahead: tuple[Batch, Scoring] | None = None  # begun before its batch's turn
        self._decided: deque[Decided] = deque()
        self._claims = Claims(ledger, spool, clock, zone)
        self._begun: set[int] = set()  # open images whose attempt in this life is counted
        self.done = 0
        self.rejected = 0

    @property
    def batches_in_hand(self) -> int:
        """Batches that are claimed and not finished."""
        return len(self._batches)

    @property
    def late(self) -> int:
        """Claimed images whose files do not answer."""
        return len(self._late)

    @property
    def images_in_hand(self) -> int:
        """Images that are claimed and not done."""
        in_batches = sum(len(batch.items) for batch in self._batches)
        waiting = sum(r.due_s < math.inf for r in self._retries.of("claimed").values())
        return in_batches + len(self._late) + len(self._decided) + waiting

    @property
    def is_idle(self) -> bool:
        """Whether no image is on its way; some may wait for their next try."""
        return not (self._batches or self._late or self._decided)

    # -- claim and decode -----------------------------------------------------------------

    def start(
        self, arrivals: Sequence[Arrival], *, is_pressed: bool = False
    ) -> list[tuple[Arrival, Reason]]:
        """Claim files and begin to decode them.

        Args:
            arrivals: settled and ready.
            is_pressed: somebody waits for them: they go before batches that are not begun.

        Returns:
            Those that cannot be moved, which lie where they were, and why.

        Raises:
            Unavailable: some could not be claimed; the others are under way.
        """
        began_s = self._clock.monotonic_s()
        made = self._claims.make(arrivals)
        if made.claimed:
            claim_ms = (self._clock.monotonic_s() - began_s) * 1000 / len(made.claimed)
            self._begin(made.claimed, claim_ms, is_pressed=is_pressed)
        if made.trouble is not None:
            raise made.trouble
        return made.held

    def clear_up_claims(self) -> Sequence[Arrival]:
        """See what has become of claims that failed, before anything else is claimed.

        Returns:
            Those that lie where they were, and are to be claimed again.

        Raises:
            Unavailable: the work folder or the ledger is out of reach; call it again later.
        """
        cleared = self._claims.clear_up()
        for image_id, arrival in cleared.taken.items():
            self._begin_anew(image_id, arrival.file.path)
        return cleared.back

    def start_due(self, now_s: float) -> bool:
        """Begin claimed images again whose time has come, each as a batch of its own.

        One that was open when the service ended, or over which the network failed, waits until no
        other is in hand, so that a poisonous one harms no other. Its attempts count the lives of
        the service in which it was begun, so trying it again after an error of ours costs it none.

        Returns:
            Whether one still waits for that; then nothing new is to be claimed.

        Raises:
            Unavailable: the work folder or the ledger is out of reach.
        """
        due = self._retries.due("claimed", now_s)
        if due:
            self._spool.check_reach()
        for key in due:
            if self._is_to_be_alone(key):
                if not self._batches:
                    self._start_again(key, now_s)
                return True
            self._start_again(key, now_s)
        return False

    def _is_to_be_alone(self, key: Key) -> bool:
        reason = self._retries.of("claimed")[key].reason
        return key[1] not in self._begun or (reason is not None and reason.code == "model")

    def _start_again(self, key: Key, now_s: float) -> None:
        image_id = int(key[1])
        if image_id not in self._begun:
            self._ledger.count_attempts([image_id])
        rejection = self._given_up(self._retries.of("claimed")[key], now_s)
        self._retries.begin(key)
        self._add_batch([image_id], 0.0, {image_id: rejection})

    def _given_up(self, retry: Retry, now_s: float) -> Rejection | None:
        """Why an image is rejected unread that has failed for too long."""
        if retry.reason is None or now_s - retry.since_s < self._give_up_after_s:
            return None
        return given_up(retry, now_s) if retry.reason.code in GIVEN_UP else None

    def _begin(self, claimed: Mapping[int, Arrival], claim_ms: float, *, is_pressed: bool) -> None:
        rejections = {image_id: arrival.given_up for image_id, arrival in claimed.items()}
        self._add_batch(list(claimed), claim_ms, rejections)
        if is_pressed:
            self._batches.insert(self._first_free_place, self._batches.pop())

    @property
    def _first_free_place(self) -> int:
        """Behind the batch that is scored and the one that the network has begun."""
        return 2 if len(self._batches) > 1 and self._is_ahead(self._batches[1]) else 1

    def _is_ahead(self, batch: Batch) -> bool:
        return self._ahead is not None and self._ahead[0] is batch

    def _add_batch(
        self, image_ids: Sequence[int], claim_ms: float, rejections: Mapping[int, Rejection | None]
    ) -> None:
        self._begun.update(image_ids)
        items = [self._item(i, claim_ms, rejections.get(i)) for i in image_ids]
        batch_id = f"b{image_ids[0]:06d}"
        self._batches.append(Batch(batch_id, items))

    def _item(self, image_id: int, claim_ms: float, rejection: Rejection | None) -> Item:
        row = self._ledger.image(image_id)
        queue_ms = (to_us(self._clock.now()) - row.settled_us) / 1000
        examine = self._spool.examine if rejection is None else self._spool.seen
        if rejection is None and row.attempts > MAX_ATTEMPTS:
            rejection = rejection_of("interrupted")
        decode = self._decoder.submit if rejection is None else None
        examining = self._hands.submit(
            partial(examined_by, partial(examine, image_id), decode, self._clock)
        )
        return Item(row, examining, rejection, queue_ms, claim_ms)

    def is_decoded(self, wait_s: float) -> bool:
        """Whether a batch is decoded and is now the oldest; waits so many seconds at most."""
        now_s = self._clock.monotonic_s()
        self._take_up_late(now_s)
        if not self._batches:
            return False
        batch = self._batches[0]
        if batch.wait(wait_s):
            return True
        holds_up = any(item.is_ready for each in self._batches for item in each.items)
        if batch.idle_s(now_s) < (_LATE_S if holds_up else _LATE_ALONE_S):
            return False
        for item in batch.part_from_late():
            self._late.append(item)
            self._put_off(item, Reason("slow", "It does not answer."))
            self._retries.begin(("claimed", item.row.id))
        if not batch.items:
            self._batches.popleft()
        return bool(batch.items)

    def _take_up_late(self, now_s: float) -> None:
        """An image whose file has answered after all, or never will, makes a batch of its own."""
        for item in list(self._late):
            image_id = item.row.id
            retry = self._retries.get(("claimed", image_id))
            rejection = None if retry is None else self._given_up(retry, now_s)
            if item.is_ready or rejection is not None:
                self._late.remove(item)
            if item.is_ready:
                self._batches.append(Batch(f"b{image_id:06d}", [item]))
            elif rejection is not None:
                self._add_batch([image_id], 0.0, {image_id: rejection})

    # -- score and decide -----------------------------------------------------------------

    def finish(self) -> None:
        """Score, decide, file and log the oldest batch, which must be decoded.

        Raises:
            Unavailable: ledger, logs or a folder cannot be written; what is not done waits.
        """
        batch = self._batches[0]
        self._part_from_failed(batch)
        found = self._find_out(batch)
        if found.verdicts:
            self._decide(found.verdicts, batch, self._engine())
        self._batches.popleft()
        for item, reason in found.put_off:
            self._put_off(item, reason)
        self.complete()

    def _part_from_failed(self, batch: Batch) -> None:
        """Take images off the batch whose files could not be read or decoded.

        Raises:
            Unavailable: that was no fault of theirs.
        """
        for item in list(batch.items):
            try:
                reason = item.failure
            except Unavailable:
                batch.items.remove(item)
                self._put_off(item, None)
                raise
            if reason is not None:
                batch.items.remove(item)
                self._put_off(item, reason)

    def _put_off(self, item: Item, reason: Reason | None) -> None:
        """Try an image again: at once, or later when something failed."""
        key: Key = ("claimed", item.row.id)
        if reason is None:
            self._begin_anew(item.row.id, item.row.inbox_path)
        else:
            self._retries.failed(key, item.row.inbox_path, reason, self._clock.monotonic_s())

    def _find_out(self, batch: Batch) -> Found:
        engine = self._engine()
        ahead = self._ahead[1] if self._ahead and self._is_ahead(batch) else None
        scoring = ahead or self._begin_to_score(batch, engine)
        try:
            scores = scoring.wait(self._beat)
        except Unavailable as error:
            failed = Reason("model", error.detail)
            return Found([], [(item, failed) for item in batch.items])
        self._score_ahead(engine)
        return self._judge(batch, scores, scoring.ms_each)

    def _begin_to_score(self, batch: Batch, engine: Engine) -> Scoring:
        copies = self._copies(batch)
        decoded = {}
        for item in batch.items:
            outcome = None if item.failure else item.outcome
            if isinstance(outcome, Decoded) and item not in copies and not self._obstacle(item):
                decoded[item.row.id] = outcome
        return self._scorer.begin(engine, decoded)

    def _score_ahead(self, engine: Engine) -> None:
        """Keep the network at work on the next batch, if it is decoded, while this one is filed."""
        batch = self._batches[1] if len(self._batches) > 1 else None
        if batch is not None and batch.is_ready and not self._is_ahead(batch):
            self._ahead = (batch, self._begin_to_score(batch, engine))

    def _judge(
        self, batch: Batch, scores: Mapping[int, Scores | Rejection], infer_ms: float
    ) -> Found:
        """Find out about each image; one of which nothing is certain is begun again instead."""
        copies = self._copies(batch)
        found = Found([], [])
        for item in batch.items:
            if item in copies:
                found.put_off.append((item, None))
            elif not self._is_steady(item):
                changing = Reason("changing", "It was written while it was read.")
                found.put_off.append((item, changing))
            else:
                finding = self._obstacle(item) or unreadable(item.outcome) or scores[item.row.id]
                found.verdicts.append(verdict_of(item, finding, infer_ms))
        return found

    def _begin_anew(self, image_id: int, name: str) -> None:
        self._retries.queue(("claimed", image_id), name, self._clock.monotonic_s())

    def _copies(self, batch: Batch) -> list[Item]:
        """Copies to be set aside of images of the same batch: they wait until those are decided."""
        return batch.copies() if self._sets_duplicates_aside else []

    def _is_steady(self, item: Item) -> bool:
        """Whether a file still is as it was read; of one that nobody reads that says nothing."""
        claimed = item.claimed
        return claimed is None or claimed.sha256 is None or self._spool.unchanged(claimed)

    def _obstacle(self, item: Item) -> Rejection | None:
        """Why an image is not even looked at, if so."""
        claimed = item.claimed
        if claimed is None:
            return rejection_of("missing")
        if item.rejection is not None:
            return item.rejection
        if claimed.sha256 is None:
            return too_large(claimed.signature.size)
        if self._sets_duplicates_aside:
            known = self._ledger.classified_index(claimed.sha256)
            if known is not None:
                return Rejection("duplicate", f"The same bytes were filed as index {known}.")
        return None

    def _decide(self, verdicts: Sequence[Verdict], batch: Batch, engine: Engine) -> None:
        sealed = self._sealer.seal(verdicts, batch.id, engine.info, self._clock.now())
        self._ledger.decide(sealed.decisions, sealed.csv_header, sealed.retried)
        items = {item.row.id: item for item in batch.items}
        for decision in sealed.decisions:
            self._retries.begin(("claimed", decision.image_id))
            self._decided.append(decided_of(decision, items[decision.image_id]))

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
        except FileTrouble as error:
            self._withdraw(decided, error)
            key: Key = ("claimed", decided.image_id)
            self._retries.failed(key, decided.path, error.reason, self._clock.monotonic_s())
            return False
        except (TargetTaken, NameRefused, ChangedAfterClaim, FileNotFoundError) as reason:
            self._withdraw(decided, reason)
            self._begin_anew(decided.image_id, decided.path)
            if isinstance(reason, NameRefused):
                self._sealer.name_plainly(decided.image_id)
            return False
        return True

    def _withdraw(self, decided: Decided, reason: Exception) -> None:
        _log.warning("an image is decided anew", index=decided.line.idx, reason=repr(reason))
        self._ledger.withdraw(decided.image_id)

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
        for decided in filed:
            self._begun.discard(decided.image_id)
            self._retries.forget(("claimed", decided.image_id))
        rejected = sum(d.outcome == "rejected" for d in filed)
        self.done, self.rejected = self.done + len(filed), self.rejected + rejected
        _log.info("filed", images=len(filed), rejected=rejected, last_index=filed[-1].line.idx)

    # -- recovery -------------------------------------------------------------------------

    def recover(self) -> None:
        """Take up what an earlier run left open; costs as much as there are open images.

        What it takes up is carried on by `start_due` and `complete`.

        Raises:
            Unavailable: the work folder or the ledger is out of reach; call it again later.
        """
        left = recovering.take_up(self._ledger, self._spool, self._clock.now(), self._zone)
        for row in left.claimed:
            self._begin_anew(row.id, row.inbox_path)
        self._decided.extend(left.decided)
