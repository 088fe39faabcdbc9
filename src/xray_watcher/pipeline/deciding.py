"""From a verdict to a decision: index, name, record and the exact bytes of both log lines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

import structlog

from xray_watcher.core.image_record import ImageRecord, Timings
from xray_watcher.core.naming import PLAIN_NAME_BYTES, indexed_name, plain_name
from xray_watcher.core.risk import assess
from xray_watcher.core.times import from_us, local_day
from xray_watcher.core.values import (
    DUPLICATES_FOLDER,
    REJECTED_FOLDER,
    Assessment,
    ModelInfo,
    Rejection,
    RiskRules,
    Scores,
)
from xray_watcher.intake.filing import ResultFolders
from xray_watcher.intake.handover import parse_request_id
from xray_watcher.ledger.ledger import Decision
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import ImageRow
from xray_watcher.ledger.states import State
from xray_watcher.records import (
    CsvLayout,
    Facts,
    Placement,
    classified_record,
    from_jsonl,
    rejected_record,
    to_jsonl,
)

_SIDECAR_BYTES = len(".json")  # a rejected image's name must leave room for its reason's

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one claimed image.

    Attributes:
        row: its row in the ledger.
        size: bytes of what was hashed; when they have vanished, as the last look found it.
        sha256: of its bytes; None when they have vanished or nobody reads them.
        width: pixels as displayed, if it was decoded.
        height: pixels as displayed, if it was decoded.
        has_low_contrast: the network sees next to nothing of it.
        timings: how long the steps took.
        outcome: its scores, or why it is rejected.
    """

    row: ImageRow
    size: int
    sha256: bytes | None
    width: int | None
    height: int | None
    has_low_contrast: bool
    timings: Timings
    outcome: Scores | Rejection


@dataclass(frozen=True, slots=True)
class DecidedBatch:
    """Decisions ready to be committed, and the earlier rejections that they replace."""

    decisions: tuple[Decision, ...]
    csv_header: bytes
    retried: tuple[int, ...]


class Decider:
    """Makes decisions of verdicts; it reads ledger and folders and changes neither.

    Args:
        ledger: indexes and known images.
        results: names that are taken.
        rules: scores to levels.
        layout: the columns of the CSV.
        zone: local time zone; None is the system's.
    """

    def __init__(
        self,
        ledger: LedgerReader,
        results: ResultFolders,
        rules: RiskRules,
        layout: CsvLayout,
        zone: tzinfo | None,
    ) -> None:
        self._ledger = ledger
        self._results = results
        self._rules = rules
        self._layout = layout
        self._zone = zone
        self._refused: set[int] = set()  # images whose next name has to be a plain one

    def name_plainly(self, image_id: int) -> None:
        """The file system refused the name of an image: give it a plain one the next time."""
        self._refused.add(image_id)

    def decide(
        self, verdicts: Sequence[Verdict], batch_id: str, model: ModelInfo, now: datetime
    ) -> DecidedBatch:
        """Decide a batch: indexes in the order of the verdicts.

        Args:
            verdicts: one or more.
            batch_id: goes into the records.
            model: the network that scored them.
            now: the time of the decision; its local day names the log.
        """
        log = self._ledger.log_for(local_day(now, self._zone), self._layout.header)
        run = _Run(batch_id, len(verdicts), model, now, log, self._ledger.next_index)
        decisions = tuple(self._decide(verdict, run) for verdict in verdicts)
        return DecidedBatch(decisions, self._layout.header, tuple(run.retried))

    def _decide(self, verdict: Verdict, run: _Run) -> Decision:
        assessment = (
            assess(verdict.outcome, self._rules) if isinstance(verdict.outcome, Scores) else None
        )
        folder = self._folder(verdict, assessment)
        index, name = self._free_name(verdict, folder, run)
        shown = None if folder is None or name is None else self._results.shown_path(folder, name)
        facts = self._facts(verdict, run)
        placement = Placement(index, shown, run.now)
        record = self._record(verdict, assessment, facts, placement, run.model)
        if assessment is not None and verdict.sha256 is not None:
            run.classified.setdefault(verdict.sha256, index)
        return Decision(
            image_id=verdict.row.id,
            idx=index,
            size=verdict.size,
            sha256=verdict.sha256,
            outcome="rejected" if assessment is None else "classified",
            level=None if assessment is None else assessment.level,
            top_label=None if assessment is None else assessment.top_label,
            reject_code=_code(verdict.outcome),
            folder=folder,
            filed_name=name,
            log=run.log,
            jsonl=to_jsonl(record),
            csv=self._layout.row(record),
        )

    def _folder(self, verdict: Verdict, assessment: Assessment | None) -> str | None:
        """Key of the folder: the level, or where rejections of this kind go."""
        if assessment is not None:
            return assessment.level
        code = _code(verdict.outcome)
        if code == "missing":
            return None
        if verdict.sha256 is None:
            return self._results.folder_unread(REJECTED_FOLDER)
        return DUPLICATES_FOLDER if code == "duplicate" else REJECTED_FOLDER

    def _free_name(self, verdict: Verdict, folder: str | None, run: _Run) -> tuple[int, str | None]:
        """The next index, and the name that it gives; an index whose name is taken is skipped."""
        while True:
            index = run.next_index
            run.next_index += 1
            if folder is None:
                return index, None
            name = self._name(index, verdict, folder)
            if not self._results.taken(folder, name):
                self._refused.discard(verdict.row.id)
                return index, name
            _log.warning(
                "name taken by a file that is not ours",
                code="name_taken",
                index=index,
                folder=folder,
            )

    def _name(self, index: int, verdict: Verdict, folder: str) -> str:
        original = os.path.basename(verdict.row.inbox_path)
        if verdict.row.id in self._refused:
            return plain_name(index, original)
        name = indexed_name(index, original)
        if len(name.encode()) <= PLAIN_NAME_BYTES:
            return name  # as most do; the file system, which may be a slow share, is not asked
        reason = _SIDECAR_BYTES if isinstance(verdict.outcome, Rejection) else 0
        return indexed_name(index, original, self._results.longest_name(folder) - reason)

    def _facts(self, verdict: Verdict, run: _Run) -> Facts:
        row, sha256 = verdict.row, verdict.sha256
        retried = self._retried(verdict, run)
        return Facts(
            path=row.inbox_path,
            size=verdict.size,
            sha256=None if sha256 is None else sha256.hex(),
            width=verdict.width,
            height=verdict.height,
            has_low_contrast=verdict.has_low_contrast,
            received_at=from_us(row.received_us),
            batch_id=run.batch_id,
            batch_size=run.batch_size,
            duplicate_of=None if sha256 is None else self._first_with(sha256, run),
            retry_of=retried,
            request_id=self._request_id(row, retried),
        )

    def _request_id(self, row: ImageRow, retry_of: int | None) -> str | None:
        """The request of an upload; another try keeps that of its rejection."""
        if retry_of is not None:
            return from_jsonl(self._ledger.record_of(retry_of).jsonl).request_id
        return None if row.upload is None else parse_request_id(row.upload)

    def _first_with(self, sha256: bytes, run: _Run) -> int | None:
        known = self._ledger.classified_index(sha256)
        return run.classified.get(sha256) if known is None else known

    def _retried(self, verdict: Verdict, run: _Run) -> int | None:
        """Index of the rejection that an image is a retry of.

        Its claim says so. The ledger has to bear it out: the same bytes, and not tried again yet.
        """
        index = verdict.row.retry_of
        earlier = None if index is None else self._ledger.image_with_index(index)
        if earlier is None or earlier.id in run.retried or not _waits_for_retry(earlier, verdict):
            return None
        run.retried.append(earlier.id)
        return earlier.idx

    def _record(
        self,
        verdict: Verdict,
        assessment: Assessment | None,
        facts: Facts,
        placement: Placement,
        model: ModelInfo,
    ) -> ImageRecord:
        outcome, timings = verdict.outcome, verdict.timings
        if isinstance(outcome, Rejection):
            return rejected_record(facts, placement, model, timings, outcome)
        assert assessment is not None
        return classified_record(
            facts, placement, model, timings, outcome, assessment, self._rules.policy
        )


@dataclass(slots=True)
class _Run:
    """What the decisions of one batch share, and what they use up."""

    batch_id: str
    batch_size: int
    model: ModelInfo
    now: datetime
    log: str
    next_index: int
    classified: dict[bytes, int] = field(default_factory=dict)
    retried: list[int] = field(default_factory=list)


def _waits_for_retry(earlier: ImageRow, verdict: Verdict) -> bool:
    is_rejected = (earlier.outcome, earlier.state) == ("rejected", State.DONE)
    if None in (earlier.sha256, verdict.sha256):  # nobody has read it, then or now
        is_same = earlier.size == verdict.size
    else:
        is_same = earlier.sha256 == verdict.sha256
    return is_rejected and earlier.removal is None and is_same


def _code(outcome: Scores | Rejection) -> str | None:
    return outcome.code if isinstance(outcome, Rejection) else None
