"""The open batches: claimed, read and decoded in their order, until they are scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from xray_watcher.core.retries import CLAIMED, GIVEN_UP, Key, Reason, Retries, Retry, given_up
from xray_watcher.core.times import to_us
from xray_watcher.core.values import Arrival, Rejection
from xray_watcher.errors import Unavailable
from xray_watcher.intake.work_folder import WorkFolder
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.pipeline.claiming import Claims
from xray_watcher.pipeline.images_in_hand import Batch, Decoder, Item, examine_and_decode
from xray_watcher.system.clock import Clock
from xray_watcher.system.hands import Hands

MAX_ATTEMPTS = 8
"""An image that was open when the service ended this often is rejected."""

_LATE_S = 3.0  # so long a batch waits for files while none of them gets any further
_LATE_ALONE_S = 30.0  # the same when nobody is held up by that


class Batches:
    """The batches that are claimed and not decided, the oldest first.

    Args:
        claims: claims files.
        ledger: has their rows.
        work: has their files.
        decoder: decodes in child processes.
        hands: reads claimed files, which may never answer.
        retries: the images that are tried again.
        counted: open images whose attempt in this life of the service is counted.
        clock: the time.
    """

    def __init__(  # noqa: PLR0913 - assembly hands over each part by name
        self,
        *,
        claims: Claims,
        ledger: Ledger,
        work: WorkFolder,
        decoder: Decoder,
        hands: Hands,
        retries: Retries,
        counted: set[int],
        give_up_after_s: float,
        clock: Clock,
    ) -> None:
        self._claims = claims
        self._ledger = ledger
        self._work = work
        self._decoder = decoder
        self._hands = hands
        self._retries = retries
        self._counted = counted
        self._give_up_after_s = give_up_after_s
        self._clock = clock
        self._batches: deque[Batch] = deque()
        self._late: list[Item] = []  # their files do not answer; their batches went on

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    @property
    def late(self) -> int:
        """Claimed images whose files do not answer."""
        return len(self._late)

    @property
    def images(self) -> int:
        """Images in the batches, and those whose files do not answer."""
        return sum(len(batch.items) for batch in self._batches) + len(self._late)

    @property
    def oldest(self) -> Batch:
        """The batch that is next; there is one."""
        return self._batches[0]

    @property
    def second(self) -> Batch | None:
        """The batch behind the oldest, if there is one."""
        return self._batches[1] if len(self._batches) > 1 else None

    def drop_oldest(self) -> None:
        """Let the oldest batch go: it is decided."""
        self._batches.popleft()

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
        if made.problem is not None:
            raise made.problem
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
            self.begin_anew(image_id, arrival.file.path)
        return cleared.back

    def start_due(self, now_s: float) -> bool:
        """Begin claimed images again whose time has come, each as a batch of its own.

        One that was open when the service ended, or over which the network failed, waits until no
        other is open, so that a poisonous one harms no other. Its attempts count the lives of
        the service in which it was begun, so trying it again after an error of ours costs it none.

        Returns:
            Whether one still waits for that; then nothing new is to be claimed.

        Raises:
            Unavailable: the work folder or the ledger is out of reach.
        """
        due = self._retries.due(CLAIMED, now_s)
        if due:
            self._work.check_reach()
        for key in due:
            if self._is_to_be_alone(key):
                if not self._batches:
                    self._start_again(key, now_s)
                return True
            self._start_again(key, now_s)
        return False

    def _is_to_be_alone(self, key: Key) -> bool:
        reason = self._retries.waiting(CLAIMED)[key].reason
        return key[1] not in self._counted or (reason is not None and reason.code == "model")

    def _start_again(self, key: Key, now_s: float) -> None:
        image_id = int(key[1])
        if image_id not in self._counted:
            self._ledger.count_attempts([image_id])
        rejection = self._given_up(self._retries.waiting(CLAIMED)[key], now_s)
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
        return 2 if self.second is not None and self.second.scoring is not None else 1

    def _add_batch(
        self, image_ids: Sequence[int], claim_ms: float, rejections: Mapping[int, Rejection | None]
    ) -> None:
        self._counted.update(image_ids)
        items = [self._item(i, claim_ms, rejections.get(i)) for i in image_ids]
        batch_id = f"b{image_ids[0]:06d}"
        self._batches.append(Batch(batch_id, items))

    def _item(self, image_id: int, claim_ms: float, rejection: Rejection | None) -> Item:
        row = self._ledger.image(image_id)
        queue_ms = (to_us(self._clock.now()) - row.settled_us) / 1000
        examine = self._work.examine if rejection is None else self._work.seen
        if rejection is None and row.attempts > MAX_ATTEMPTS:
            rejection = Rejection.of("interrupted")
        decode = self._decoder.submit if rejection is None else None
        examining = self._hands.submit(
            partial(examine_and_decode, partial(examine, image_id), decode, self._clock)
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
        for item in batch.remove_late():
            self._late.append(item)
            self.put_off(item, Reason("slow", "It does not answer."))
            self._retries.begin((CLAIMED, item.row.id))
        if not batch.items:
            self._batches.popleft()
        return bool(batch.items)

    def _take_up_late(self, now_s: float) -> None:
        """An image whose file has answered after all, or never will, makes a batch of its own."""
        for item in list(self._late):
            image_id = item.row.id
            retry = self._retries.get((CLAIMED, image_id))
            rejection = None if retry is None else self._given_up(retry, now_s)
            if item.is_ready or rejection is not None:
                self._late.remove(item)
            if item.is_ready:
                self._batches.append(Batch(f"b{image_id:06d}", [item]))
            elif rejection is not None:
                self._add_batch([image_id], 0.0, {image_id: rejection})

    def remove_failed(self) -> None:
        """Take images off the oldest batch whose files could not be read or decoded.

        Raises:
            Unavailable: that was no fault of theirs.
        """
        batch = self.oldest
        for item in list(batch.items):
            try:
                reason = item.failure
            except Unavailable:
                batch.items.remove(item)
                self.put_off(item, None)
                raise
            if reason is not None:
                batch.items.remove(item)
                self.put_off(item, reason)

    def put_off(self, item: Item, reason: Reason | None) -> None:
        """Try an image again: at once, or later when something failed."""
        key: Key = (CLAIMED, item.row.id)
        if reason is None:
            self.begin_anew(item.row.id, item.row.inbox_path)
        else:
            self._retries.failed(key, item.row.inbox_path, reason, self._clock.monotonic_s())

    def begin_anew(self, image_id: int, name: str) -> None:
        """Let `start_due` begin an image at once."""
        self._retries.queue((CLAIMED, image_id), name, self._clock.monotonic_s())
