"""When a batch is ready, and who has a place in it.

A batch is ready with enough images, in a quiet moment, or when the first has waited long enough.
Somebody waits for the answer to an upload, and for a film of an urgent source: those wait for no
more images. They go first, but every fourth place is one of the others'. Those take turns by their
source, the first folder of their path, so that an archive of one keeps no other waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from xray_watcher.core.values import Arrival

PLACES_BEFORE_OTHERS = 3
"""So many places in a row may go to uploads and urgent sources while others wait."""

_Queue = deque[tuple[Arrival, float]]


def source_folder(path: str) -> str:
    """The first folder of a path below the inbox; empty for a file in the inbox itself."""
    folder, slash, _ = path.partition("/")
    return folder if slash else ""


class Batching:
    """Gathers settled files into batches; within a source in the order in which they came.

    Args:
        max_size: most images in one batch.
        quiet_s: seconds without a new arrival after which what is there makes a batch.
        max_wait_s: seconds that the first image of a batch waits at most.
        urgent: sources that go before the others.
    """

    def __init__(
        self, max_size: int, quiet_s: float, max_wait_s: float, urgent: Sequence[str] = ()
    ) -> None:
        self._first: _Queue = deque()  # somebody waits for their results
        self._urgent: _Queue = deque()
        self._others: dict[str, _Queue] = {}  # by source, the next one to have a place first
        self._newest_s = float("-inf")
        self._in_a_row = 0  # places that did not go to others
        self._count = 0
        self._max_size = max_size
        self._quiet_s = quiet_s
        self._max_wait_s = max_wait_s
        self._urgent_sources = frozenset(urgent)

    def __len__(self) -> int:
        """Number of images that wait for a batch."""
        return self._count

    @property
    def is_pressed(self) -> bool:
        """Whether somebody waits: for an upload, or a film of an urgent source."""
        return bool(self._first or self._urgent)

    def add(self, arrivals: Iterable[Arrival], now_s: float) -> None:
        """Queue images that have settled now."""
        for arrival in arrivals:
            self._queue_for(arrival).append((arrival, now_s))
            self._newest_s = now_s
            self._count += 1

    def put_back(self, arrivals: Sequence[Arrival]) -> None:
        """Queue images once more, before all others of their kind: they could not be claimed.

        They have waited, so they are a batch at once.
        """
        for arrival in reversed(arrivals):
            self._queue_for(arrival).appendleft((arrival, float("-inf")))
            self._count += 1

    def _queue_for(self, arrival: Arrival) -> _Queue:
        if arrival.is_awaited:
            return self._first
        source = source_folder(arrival.file.path)
        if source in self._urgent_sources:
            return self._urgent
        return self._others.setdefault(source, deque())

    def take(self, now_s: float) -> list[Arrival]:
        """Return the next batch, or nothing when none is ready."""
        due_s = self.next_due_s()
        if due_s is None or now_s < due_s:
            return []
        return [self._next() for _ in range(min(self._max_size, self._count))]

    def _next(self) -> Arrival:
        self._count -= 1
        pressing = self._first or self._urgent
        if pressing and not (self._others and self._in_a_row >= PLACES_BEFORE_OTHERS):
            self._in_a_row += 1
            return pressing.popleft()[0]
        self._in_a_row = 0
        source = next(iter(self._others))
        queue = self._others.pop(source)
        arrival = queue.popleft()[0]
        if queue:
            self._others[source] = queue  # behind all others
        return arrival

    def next_due_s(self) -> float | None:
        """When the next batch is ready if nothing more comes; None when nothing waits."""
        if not self._count:
            return None
        queues = (self._first, self._urgent, *self._others.values())
        oldest_s = min(queue[0][1] for queue in queues if queue)
        if self.is_pressed or self._count >= self._max_size:
            return oldest_s
        return min(self._newest_s + self._quiet_s, oldest_s + self._max_wait_s)
