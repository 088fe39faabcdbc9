"""The network at work in a thread of its own, so that it goes on while results are filed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from xray_watcher.core.calibration import scores
from xray_watcher.core.values import Rejection, Scores
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import Decoded
from xray_watcher.model.engine import Engine
from xray_watcher.system.clock import Clock

# On a slow processor a batch of a thousand takes longer than the watchdog waits.
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _ScoredPart:
    """Raw scores `[N, labels]` of some pictures, and how many milliseconds they took."""

    raw: NDArray[np.float32]
    took_ms: float


class Scoring:
    """The scores of some pictures, on their way.

    Args:
        engine: that computes them.
        image_ids: in the order of the pictures.
        parts: of the pictures, in the same order.
    """

    def __init__(
        self, engine: Engine, image_ids: Sequence[int], parts: Sequence[Future[_ScoredPart]]
    ) -> None:
        self._engine = engine
        self._image_ids = image_ids
        self._parts = parts

    def wait(self, beat: Callable[[], None]) -> Mapping[int, Scores | Rejection]:
        """Wait for them.

        Args:
            beat: is called now and then.

        Returns:
            What the network says of each image, by its id.

        Raises:
            Unavailable: the network failed.
        """
        found: list[Scores | Rejection] = []
        for part in self._parts:
            try:
                raw = part.result().raw
            except (RuntimeError, MemoryError) as error:
                raise Unavailable("model", f"The network failed on a batch: {error}") from error
            found += [_interpret(self._engine, row.tolist()) for row in raw]
            beat()
        return dict(zip(self._image_ids, found, strict=True))

    @property
    def ms_each(self) -> float:
        """Milliseconds of the network for one image, once they are there."""
        took_ms = sum(part.result().took_ms for part in self._parts)
        return took_ms / max(len(self._image_ids), 1)


class Scorer:
    """Scores pictures in the order in which it is asked to.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "network")

    def begin(self, engine: Engine, decoded: Mapping[int, Decoded]) -> Scoring:
        """Begin to score pictures.

        Args:
            engine: the network.
            decoded: any number of them, by the id of the image.
        """
        pictures = iter(decoded.values())
        parts = []
        while some := list(islice(pictures, _AT_ONCE)):
            parts.append(self._thread.submit(self._part, engine, some))
        return Scoring(engine, list(decoded), parts)

    def close(self) -> None:
        """Finish the part at hand and leave out what is not begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _part(self, engine: Engine, pictures: Sequence[Decoded]) -> _ScoredPart:
        began_s = self._clock.monotonic_s()
        raw = engine.classify(np.stack([each.image.pixels for each in pictures]))
        return _ScoredPart(raw, (self._clock.monotonic_s() - began_s) * 1000)


def _interpret(engine: Engine, raw: list[float]) -> Scores | Rejection:
    """Scores of one image; numbers that are none are a failure, never a level."""
    try:
        return scores(engine.labels, raw, engine.operating_points)
    except ValueError:
        return Rejection.of("not_finite")
