"""The network in a thread of its own."""

from __future__ import annotations

from contextlib import closing
from threading import Event, Thread

import numpy as np
import pytest

from rig import LABELS, HandClock, TextEngine
from xray_watcher.core.values import Rejection, Scores
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import Decoded
from xray_watcher.imaging.picture import DecodedImage
from xray_watcher.pipeline.scoring import Scorer


def _pictures(count: int) -> dict[int, Decoded]:
    """The label of a picture follows from its id."""
    return {
        image_id: Decoded(
            DecodedImage(np.full((1, 224, 224), image_id % len(LABELS), np.float32), 300, 250), 0.01
        )
        for image_id in range(1000, 1000 + count)
    }


def _top(found: Scores | Rejection) -> str:
    assert isinstance(found, Scores)
    return found.labels[int(np.argmax(found.calibrated))]


def _takes_more(scorer: Scorer) -> bool:
    try:
        scorer.begin(TextEngine(), _pictures(1))
    except RuntimeError:
        return False
    return True


def test_each_image_of_a_large_batch_gets_its_own_scores_and_progress_is_told() -> None:
    beats: list[int] = []
    with closing(Scorer(HandClock())) as scorer:
        found = scorer.begin(TextEngine(), _pictures(150)).wait(lambda: beats.append(1))
    assert {i: _top(scores) for i, scores in found.items()} == {
        i: LABELS[i % len(LABELS)] for i in range(1000, 1150)
    }
    assert len(beats) == 3


def test_the_time_is_that_of_the_network_and_not_of_waiting_for_it() -> None:
    clock, engine = HandClock(), TextEngine()
    classify = engine.classify

    def slowly(batch: np.ndarray) -> np.ndarray:
        clock.passed_s += 0.25 * len(batch)
        return classify(batch)

    engine.classify = slowly  # type: ignore[method-assign]
    with closing(Scorer(clock)) as scorer:
        first, second = (scorer.begin(engine, _pictures(100)) for _ in range(2))
        second.wait(lambda: None)
        assert first.ms_each == second.ms_each == 250.0


def test_nothing_to_score_is_no_trouble() -> None:
    with closing(Scorer(HandClock())) as scorer:
        scoring = scorer.begin(TextEngine(), {})
        assert scoring.wait(lambda: None) == {}
        assert scoring.ms_each == 0.0


def test_a_failure_of_the_network_belongs_to_who_waits_for_it() -> None:
    engine = TextEngine()
    engine.broken = True
    with closing(Scorer(HandClock())) as scorer:
        scoring = scorer.begin(engine, _pictures(1))
        with pytest.raises(Unavailable, match="out of memory"):
            scoring.wait(lambda: None)


def test_at_the_end_what_is_not_begun_is_left_out() -> None:
    engine, may_end = TextEngine(), Event()
    classify = engine.classify

    def until_told(batch: np.ndarray) -> np.ndarray:
        assert may_end.wait(30)
        return classify(batch)

    engine.classify = until_told  # type: ignore[method-assign]
    scorer = Scorer(HandClock())
    scorer.begin(engine, _pictures(300))
    ending = Thread(target=scorer.close)
    ending.start()
    while _takes_more(scorer):  # it takes no more as soon as it has left out the others
        assert ending.is_alive()
    may_end.set()
    ending.join(30)
    assert engine.batches == [64]
