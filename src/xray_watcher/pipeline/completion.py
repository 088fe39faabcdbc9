"""Carries decisions out: commits, files and logs them, in the order of the indexes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog

from xray_watcher.core.retries import CLAIMED, Key, Retries
from xray_watcher.core.values import ModelInfo
from xray_watcher.intake.claims import ChangedAfterClaim, FileProblem, NameRefused, TargetTaken
from xray_watcher.intake.filing import ResultFolders
from xray_watcher.ledger.effect import Effect, Filing
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.log_files import LogFiles
from xray_watcher.pipeline.deciding import Decider, Verdict
from xray_watcher.pipeline.images_in_hand import Batch, Decided, make_decided
from xray_watcher.records import from_jsonl
from xray_watcher.system.clock import Clock

_log = structlog.get_logger()


class Completion:
    """The images that are decided and not done.

    Args:
        ledger: the truth.
        results: the folders that images are filed in.
        logs: the JSONL and CSV logs.
        decider: turns verdicts into decisions.
        retries: the images that are tried again.
        counted: open images whose attempt in this life of the service is counted.
        clock: the time.
        beat: is called at progress.
        effects: what follows from a filing, and is committed with it.

    Attributes:
        done: images that were filed since the start, the rejected ones included.
        rejected: images that were rejected since the start.
    """

    def __init__(  # noqa: PLR0913 - assembly hands over each part by name
        self,
        *,
        ledger: Ledger,
        results: ResultFolders,
        logs: LogFiles,
        decider: Decider,
        retries: Retries,
        counted: set[int],
        clock: Clock,
        beat: Callable[[], None],
        effects: Sequence[Effect],
    ) -> None:
        self._ledger = ledger
        self._results = results
        self._logs = logs
        self._decider = decider
        self._retries = retries
        self._counted = counted
        self._clock = clock
        self._beat = beat
        self._effects = effects
        self._decided: deque[Decided] = deque()
        self.done = 0
        self.rejected = 0

    def __len__(self) -> int:
        """Number of images."""
        return len(self._decided)

    def take_up(self, decided: Iterable[Decided]) -> None:
        """Go on with what an earlier run has decided."""
        self._decided.extend(decided)

    def decide(self, verdicts: Sequence[Verdict], batch: Batch, model: ModelInfo) -> None:
        """Commit the decisions about a batch.

        Args:
            verdicts: what was found, one or more.
            batch: their images.
            model: the network that scored them.

        Raises:
            Unavailable: the ledger cannot be written; nothing is decided.
        """
        decided_batch = self._decider.decide(verdicts, batch.id, model, self._clock.now())
        self._ledger.decide(
            decided_batch.decisions, decided_batch.csv_header, decided_batch.retried
        )
        items = {item.row.id: item for item in batch.items}
        for decision in decided_batch.decisions:
            self._retries.begin((CLAIMED, decision.image_id))
            self._decided.append(make_decided(decision, items[decision.image_id]))

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
        key: Key = (CLAIMED, decided.image_id)
        try:
            if decided.move is not None:
                self._results.file(decided.move)
                if decided.move.with_reason:
                    self._results.write_beside(decided.move, decided.line.jsonl)
        except FileProblem as error:
            self._withdraw(decided, error)
            self._retries.failed(key, decided.path, error.reason, self._clock.monotonic_s())
            return False
        except (TargetTaken, NameRefused, ChangedAfterClaim, FileNotFoundError) as reason:
            self._withdraw(decided, reason)
            self._retries.queue(key, decided.path, self._clock.monotonic_s())
            if isinstance(reason, NameRefused):
                self._decider.name_plainly(decided.image_id)
            return False
        return True

    def _withdraw(self, decided: Decided, reason: Exception) -> None:
        _log.warning(
            "an image is decided anew",
            code="decided_anew",
            index=decided.line.idx,
            reason=repr(reason),
        )
        self._ledger.withdraw(decided.image_id)

    def _log_and_finish(self, filed: Sequence[Decided]) -> None:
        try:
            self._results.sync_filed([d.move.folder for d in filed if d.move is not None])
            now = self._clock.now()
            states, conflicts = self._logs.append([d.line for d in filed], now)
            records = [from_jsonl(d.line.jsonl) for d in filed]
            filing = Filing([d.image_id for d in filed], records, now)
            self._ledger.finish(filing, states, self._effects)
        except BaseException:
            self._decided.extendleft(reversed(filed))  # filing again finds them filed
            raise
        for conflict in conflicts:
            _log.error(
                "a log was changed by somebody; theirs is kept",
                code="log_conflict",
                kept=conflict.path,
            )
        for decided in filed:
            self._counted.discard(decided.image_id)
            self._retries.forget((CLAIMED, decided.image_id))
        rejected = sum(d.outcome == "rejected" for d in filed)
        self.done, self.rejected = self.done + len(filed), self.rejected + rejected
        _log.info(
            "filed",
            code="filed",
            images=len(filed),
            rejected=rejected,
            last_index=filed[-1].line.idx,
        )
