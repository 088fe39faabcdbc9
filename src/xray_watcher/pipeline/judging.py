"""What is found about each image of a batch: its scores, or why it is rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xray_watcher.core.retries import Reason
from xray_watcher.core.values import LARGEST_FILE_BYTES, Rejection, Scores
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import Decoded, Unreadable
from xray_watcher.intake.work_folder import is_unchanged
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.model.engine import Engine
from xray_watcher.pipeline.images_in_hand import Batch, Found, Item, make_verdict
from xray_watcher.pipeline.scoring import Scorer, Scoring


class Judge:
    """Judges one batch after the other.

    Args:
        ledger: knows the bytes that were classified before.
        scorer: scores in a thread of its own.
        beat: is called at progress.
        rejects_duplicates: reject known bytes unscored.
    """

    def __init__(
        self,
        ledger: LedgerReader,
        scorer: Scorer,
        beat: Callable[[], None],
        *,
        rejects_duplicates: bool,
    ) -> None:
        self._ledger = ledger
        self._scorer = scorer
        self._beat = beat
        self._rejects_duplicates = rejects_duplicates

    def judge(self, batch: Batch, following: Batch | None, engine: Engine) -> Found:
        """Find out about a batch, all of whose images are decoded.

        Args:
            batch: the batch.
            following: the batch behind it; the network goes on with it, if it is decoded.
            engine: the network.
        """
        scoring = batch.scoring or self._begin_to_score(batch, engine)
        batch.scoring = None  # if deciding fails, the batch is scored anew
        try:
            scores = scoring.wait(self._beat)
        except Unavailable as error:
            failed = Reason("model", error.reason)
            return Found([], [(item, failed) for item in batch.items])
        if following is not None and following.is_ready and following.scoring is None:
            following.scoring = self._begin_to_score(following, engine)
        return self._find_out(batch, scores, scoring.ms_each)

    def _begin_to_score(self, batch: Batch, engine: Engine) -> Scoring:
        copies = self._copies(batch)
        decoded = {}
        for item in batch.items:
            outcome = None if item.failure else item.outcome
            if isinstance(outcome, Decoded) and item not in copies and not self._obstacle(item):
                decoded[item.row.id] = outcome
        return self._scorer.begin(engine, decoded)

    def _find_out(
        self, batch: Batch, scores: Mapping[int, Scores | Rejection], infer_ms: float
    ) -> Found:
        """Find out about each image; one of which nothing is certain is begun again instead."""
        copies = self._copies(batch)
        found = Found([], [])
        for item in batch.items:
            if item in copies:
                found.put_off.append((item, None))
            elif (claimed := item.claimed) and claimed.sha256 and not is_unchanged(claimed):
                changing = Reason("changing", "It was written while it was read.")
                found.put_off.append((item, changing))
            else:
                outcome = item.outcome
                unreadable = outcome.rejection if isinstance(outcome, Unreadable) else None
                found_out = self._obstacle(item) or unreadable or scores[item.row.id]
                found.verdicts.append(make_verdict(item, found_out, infer_ms))
        return found

    def _copies(self, batch: Batch) -> list[Item]:
        """Copies within the batch that will be rejected: they wait for their originals."""
        return batch.copies() if self._rejects_duplicates else []

    def _obstacle(self, item: Item) -> Rejection | None:
        """Why an image is not even looked at, if so."""
        claimed = item.claimed
        if claimed is None:
            return Rejection.of("missing")
        if item.rejection is not None:
            return item.rejection
        if claimed.sha256 is None:
            return Rejection(
                "too_large",
                f"The file has {claimed.signature.size} bytes; no more than {LARGEST_FILE_BYTES} "
                "can be taken.",
            )
        if self._rejects_duplicates:
            known = self._ledger.classified_index(claimed.sha256)
            if known is not None:
                return Rejection("duplicate", f"The same bytes were filed as index {known}.")
        return None
