"""The images that are claimed and not done: what is known of each between two steps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Protocol

from xray_watcher.core.image_record import Timings
from xray_watcher.core.retries import Reason
from xray_watcher.core.values import Rejection, Scores
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import Decoded, DecodeOutcome
from xray_watcher.intake.claims import Claimed, FileProblem, Move
from xray_watcher.ledger.ledger import Decision
from xray_watcher.ledger.rows import ImageRow, LogLine
from xray_watcher.pipeline.deciding import Verdict
from xray_watcher.pipeline.scoring import Scoring
from xray_watcher.system.clock import Clock


class Decoder(Protocol):
    """What turns a claimed file into pixels, elsewhere and later."""

    def submit(self, path: str) -> Future[DecodeOutcome]:
        """Begin to decode a file."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A claimed file that was read: `claimed` is None when it has vanished.

    `decoding` is None when it is not decoded; `seconds` is how long reading took.
    """

    claimed: Claimed | None
    seconds: float = 0.0
    decoding: Future[DecodeOutcome] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One claimed image on its way.

    Attributes:
        row: its row in the ledger.
        examining: the file, read elsewhere, for it may never answer.
        rejection: why it is rejected without a look at it; None for all others.
        queue_ms: how long it waited since it had settled.
        claim_ms: its share of the claim.
    """

    row: ImageRow
    examining: Future[Examined]
    rejection: Rejection | None
    queue_ms: float
    claim_ms: float

    @property
    def is_ready(self) -> bool:
        """Whether the file is read and decoded, or failed."""
        if not self.examining.done():
            return False
        examined = self.examined
        return examined is None or examined.decoding is None or examined.decoding.done()

    @property
    def examined(self) -> Examined | None:
        """The file as it was read; None when that failed."""
        if self.examining.cancelled() or self.examining.exception() is not None:
            return None
        return self.examining.result()

    @property
    def claimed(self) -> Claimed | None:
        """The file; None when it has vanished."""
        examined = self.examined
        return None if examined is None else examined.claimed

    @property
    def outcome(self) -> DecodeOutcome | None:
        """The picture, or why it cannot be decoded; None when it was not tried."""
        examined = self.examined
        if examined is None or examined.decoding is None:
            return None
        return examined.decoding.result()

    @property
    def failure(self) -> Reason | None:
        """Why the image has to be tried again; None when nothing failed.

        Raises:
            Unavailable: something failed that is no fault of this image.
        """
        try:
            examined = self.examining.result()
            if examined.decoding is not None:
                examined.decoding.result()
        except FileProblem as error:
            return error.reason
        except Unavailable as error:
            if error.component == "decoder":
                return Reason("decoder", error.reason)
            if error.component == "storage":
                return Reason("unreadable", error.reason)
            raise
        return None


class Batch:
    """Images that are scored and decided together.

    Args:
        batch_id: goes into their records.
        items: the images; those that failed or are late leave it.

    Attributes:
        scoring: its scores on their way, when the network has begun before the batch's turn.
    """

    def __init__(self, batch_id: str, items: list[Item]) -> None:
        self.id = batch_id
        self.items = items
        self.scoring: Scoring | None = None
        self._ready = -1
        self._progress_s = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether every image is decoded, or failed."""
        return all(item.is_ready for item in self.items)

    def wait(self, wait_s: float) -> bool:
        """Whether every image is ready; waits for that many seconds at most for each step."""
        if wait([item.examining for item in self.items], wait_s).not_done:
            return False
        examined = [item.examined for item in self.items]
        decoding = [each.decoding for each in examined if each and each.decoding]
        return not wait(decoding, wait_s).not_done

    def idle_s(self, now_s: float) -> float:
        """For how long none of its images has got any further, since this was asked first."""
        ready = sum(item.is_ready for item in self.items)
        if ready != self._ready:
            self._ready, self._progress_s = ready, now_s
        return now_s - self._progress_s

    def copies(self) -> list[Item]:
        """The images that have the same bytes as an earlier one."""
        known: set[bytes] = set()
        copies = []
        for item in self.items:
            sha256 = None if item.claimed is None else item.claimed.sha256
            if sha256 in known:
                copies.append(item)
            elif sha256 is not None:
                known.add(sha256)
        return copies

    def remove_late(self) -> list[Item]:
        """Let the images go that are not ready; the others go on without them."""
        late = [item for item in self.items if not item.is_ready]
        self.items = [item for item in self.items if item.is_ready]
        return late


@dataclass(frozen=True, slots=True)
class Found:
    """What was found about a batch: verdicts, and the images that are tried again, and why."""

    verdicts: list[Verdict]
    put_off: list[tuple[Item, Reason | None]]


@dataclass(frozen=True, slots=True)
class Decided:
    """A committed decision that has to be carried out; `move` is None for a vanished file."""

    image_id: int
    path: str
    move: Move | None
    line: LogLine
    outcome: str


def examine_and_decode(
    examine: Callable[[], Claimed | None],
    decode: Callable[[str], Future[DecodeOutcome]] | None,
    clock: Clock,
) -> Examined:
    """Look at a claimed file, and then ask for it to be decoded, if it is to be."""
    began_s = clock.monotonic_s()
    claimed = examine()
    seconds = clock.monotonic_s() - began_s
    if claimed is None or claimed.sha256 is None or decode is None:
        return Examined(claimed, seconds)
    return Examined(claimed, seconds, decode(claimed.path))


def make_verdict(item: Item, found: Scores | Rejection, infer_ms: float) -> Verdict:
    """What was found about one image, with how long that took."""
    claimed, outcome = item.claimed, item.outcome
    image = outcome.image if isinstance(outcome, Decoded) else None
    return Verdict(
        row=item.row,
        size=item.row.size if claimed is None else claimed.signature.size,
        sha256=None if claimed is None else claimed.sha256,
        width=None if image is None else image.width,
        height=None if image is None else image.height,
        has_low_contrast=image is not None and image.has_low_contrast,
        timings=Timings(
            settle=(item.row.settled_us - item.row.received_us) / 1000,
            queue=item.queue_ms,
            decode=0.0 if outcome is None else outcome.seconds * 1000,
            infer=infer_ms if isinstance(found, Scores) else 0.0,
            file=item.claim_ms + (item.examined.seconds * 1000 if item.examined else 0.0),
        ),
        outcome=found,
    )


def make_decided(decision: Decision, item: Item) -> Decided:
    """What has to be done about an image that was decided."""
    line = LogLine(decision.idx, decision.log, decision.jsonl, decision.csv)
    move = None
    if decision.folder and decision.filed_name and item.claimed is not None:
        move = Move(
            decision.image_id,
            decision.folder,
            decision.filed_name,
            item.claimed.sha256,
            item.claimed.signature,
            with_reason=decision.outcome == "rejected",
        )
    return Decided(decision.image_id, item.row.inbox_path, move, line, decision.outcome)
