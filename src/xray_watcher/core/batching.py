"""When a batch is ready: enough images, a quiet moment, or the first has waited long enough.

Somebody waits for the answer to an upload, so an upload waits for no more images: it goes with
whatever is there when the pipeline has room. Those that come meanwhile make the next batch larger.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from xray_watcher.core.values import Arrival


class Batching:
    """Gathers settled files into batches, in the order in which they came.

    Args:
        max_size: most images in one batch.
        quiet_s: seconds without a new arrival after which what is there makes a batch.
        max_wait_s: seconds that the first image of a batch waits at most.
    """

    def __init__(self, max_size: int, quiet_s: float, max_wait_s: float) -> None:
        self._queue: deque[tuple[Arrival, float]] = deque()
        self._uploads = 0  # in the queue
        self.use(max_size, quiet_s, max_wait_s)

    def use(self, max_size: int, quiet_s: float, max_wait_s: float) -> None:
        """Gather by other rules from now on; what waits goes on waiting."""
        self._max_size = max_size
        self._quiet_s = quiet_s
        self._max_wait_s = max_wait_s

    def __len__(self) -> int:
        """Number of images that wait for a batch."""
        return len(self._queue)

    def add(self, arrivals: Iterable[Arrival], now_s: float) -> None:
        """Queue images that have settled now."""
        for arrival in arrivals:
            self._queue.append((arrival, now_s))
            self._uploads += arrival.upload is not None

    def take(self, now_s: float) -> list[Arrival]:
        """Return the next batch, oldest first, or nothing when none is ready."""
        due_s = self.next_due_s()
        if due_s is None or now_s < due_s:
            return []
        count = min(self._max_size, len(self._queue))
        batch = [self._queue.popleft()[0] for _ in range(count)]
        self._uploads -= sum(arrival.upload is not None for arrival in batch)
        return batch

    def next_due_s(self) -> float | None:
        """When the next batch is ready if nothing more comes; None when nothing waits."""
        if not self._queue:
            return None
        if self._uploads:
            return self._added_s(0)
        if len(self._queue) >= self._max_size:
            return self._added_s(self._max_size - 1)
        return min(self._added_s(-1) + self._quiet_s, self._added_s(0) + self._max_wait_s)

    def _added_s(self, position: int) -> float:
        if position < 0:
            return self._queue[position][1]
        return next(islice(self._queue, position, None))[1]
