"""The way of an image from claim to log, batch by batch.

`Batches` claims files and begins to decode them; `finish` scores, decides, files and logs
the oldest batch. The decoders are at work on the next ones meanwhile, and while it is filed the
network is, too. What a kill interrupts, `recover` takes up at the next start.

What one file does costs that file alone: it waits in the table of retries for its next try. An
error of ours raises `Unavailable`; the same step is then the first of the next turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import Literal

from xray_watcher.core.retries import CLAIMED, Retries
from xray_watcher.intake.spool import Spool
from xray_watcher.ledger.effect import Effect
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.log_files import LogFiles
from xray_watcher.model.engine import Engine
from xray_watcher.pipeline.batches import Batches
from xray_watcher.pipeline.claiming import Claims
from xray_watcher.pipeline.completion import Completion
from xray_watcher.pipeline.deciding import Decider
from xray_watcher.pipeline.images_in_hand import Decoder
from xray_watcher.pipeline.judging import Judge
from xray_watcher.pipeline.recovery import Recovery
from xray_watcher.pipeline.scoring import Scorer
from xray_watcher.system.clock import Clock
from xray_watcher.system.hands import Hands

MOST_LATE = 16
"""With so many images whose files do not answer, nothing more is claimed."""


class Pipeline:
    """The way of an image, for one daemon; `build_pipeline` puts it together.

    Args:
        batches: what is claimed and decoded; files are claimed and begun by it.
        judge: scores it and says what was found.
        completion: decides, files and logs it.
        recovery: finds what an earlier run left open.
        engine: returns the network; called only when a batch is finished.
        retries: the images that are tried again.
    """

    def __init__(
        self,
        batches: Batches,
        judge: Judge,
        completion: Completion,
        recovery: Recovery,
        engine: Callable[[], Engine],
        retries: Retries,
    ) -> None:
        self.batches = batches
        self._judge = judge
        self._completion = completion
        self._recovery = recovery
        self._engine = engine
        self._retries = retries

    @property
    def open_batches(self) -> int:
        """Batches that are claimed and not finished."""
        return len(self.batches)

    @property
    def open_images(self) -> int:
        """Images that are claimed and not done."""
        waiting = sum(retry.due_s < math.inf for retry in self._retries.waiting(CLAIMED).values())
        return self.batches.images + len(self._completion) + waiting

    @property
    def is_idle(self) -> bool:
        """Whether no image is on its way; some may wait for their next try."""
        return not (self.batches or self.batches.late or self._completion)

    @property
    def done(self) -> int:
        """Images that were filed since the start, the rejected ones included."""
        return self._completion.done

    @property
    def rejected(self) -> int:
        """Images that were rejected since the start."""
        return self._completion.rejected

    def finish(self) -> None:
        """Score, decide, file and log the oldest batch, which must be decoded.

        Raises:
            Unavailable: ledger, logs or a folder cannot be written; what is not done waits.
        """
        batch, engine = self.batches.oldest, self._engine()
        self.batches.remove_failed()
        found = self._judge.judge(batch, self.batches.second, engine)
        if found.verdicts:
            self._completion.decide(found.verdicts, batch, engine.info)
        self.batches.drop_oldest()
        for item, reason in found.put_off:
            self.batches.put_off(item, reason)
        self.complete()

    def complete(self) -> None:
        """File, log and finish every decided image, in the order of the indexes.

        Raises:
            Unavailable: a folder or log cannot be written; the rest waits for another try.
        """
        self._completion.complete()

    def recover(self) -> None:
        """Take up what an earlier run left open; costs as much as there are open images.

        What it takes up is carried on by `start_due` and `complete`.

        Raises:
            Unavailable: the work folder or the ledger is out of reach; call it again later.
        """
        left = self._recovery.take_up()
        for row in left.claimed:
            self.batches.begin_anew(row.id, row.inbox_path)
        self._completion.take_up(left.decided)


def build_pipeline(  # noqa: PLR0913 - assembly: each part by its name
    *,
    ledger: Ledger,
    spool: Spool,
    logs: LogFiles,
    decoder: Decoder,
    hands: Hands,
    engine: Callable[[], Engine],
    scorer: Scorer,
    decider: Decider,
    retries: Retries,
    duplicates: Literal["flag", "set-aside"],
    give_up_after_s: float,
    clock: Clock,
    zone: tzinfo | None,
    beat: Callable[[], None],
    effects: Sequence[Effect],
) -> Pipeline:
    """Put the way of an image together; each part is explained where it is used.

    Args:
        engine: returns the network; called only when a batch is finished.
        duplicates: "flag" files known bytes by their scores, "set-aside" rejects them unscored.
        give_up_after_s: after so long an image that cannot be read is rejected.
        zone: local time zone; None is the system's.
    """
    counted: set[int] = set()
    batches = Batches(
        claims=Claims(ledger, spool, clock, zone),
        ledger=ledger,
        work=spool.work,
        decoder=decoder,
        hands=hands,
        retries=retries,
        counted=counted,
        give_up_after_s=give_up_after_s,
        clock=clock,
    )
    completion = Completion(
        ledger=ledger,
        results=spool.results,
        logs=logs,
        decider=decider,
        retries=retries,
        counted=counted,
        clock=clock,
        beat=beat,
        effects=effects,
    )
    judge = Judge(ledger, scorer, beat, rejects_duplicates=duplicates == "set-aside")
    recovery = Recovery(ledger, spool, clock, zone)
    return Pipeline(batches, judge, completion, recovery, engine, retries)
