"""Decoding in child processes, so that a hostile picture can end a child but not the service.

Each worker is one thread of ours that owns one child (`decode_worker`), gives it one path at a
time and ends it at the deadline.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

from xray_watcher.core.values import Rejection
from xray_watcher.imaging.child import KilledChildError
from xray_watcher.imaging.child_worker import ChildWorker
from xray_watcher.imaging.decode_child import DecodeChild
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.picture import DecodedImage
from xray_watcher.imaging.shared_lock import SharedLock

# -P keeps the current folder, which may be a share, off the import path; -B writes no byte code.
WORKER_COMMAND = (sys.executable, "-P", "-B", "-m", "xray_watcher.imaging.decode_worker")
"""The program of a child."""

MOST_KILLS = 8
"""So often a picture may have its decoder killed while no other works, before it is rejected.

Such a kill means that memory is short, which is no fault of the picture: it stays claimed. But one
that always needs more than there is must not keep all others waiting for ever.
"""


@dataclass(frozen=True)
class Decoded:
    """A picture that could be read, and how many seconds that took."""

    image: DecodedImage
    seconds: float


@dataclass(frozen=True)
class Unreadable:
    """A picture to be rejected, why, and how many seconds it took to find out."""

    rejection: Rejection
    seconds: float


DecodeOutcome: TypeAlias = Decoded | Unreadable


class DecodePool:
    """Decodes files in a few child processes with limits of memory, processor time and wall time.

    A context manager. Children are started when they are first needed and again after a crash;
    between pictures they wait and use no processor time.

    Args:
        workers: how many pictures are decoded at the same time, 1 or more.
        limits: what a picture may be.
        seconds: processor time for one picture; three times that on the clock, if a core is free.
        memory_bytes: address space of a child, interpreter and libraries (about 250 MB) included.
        command: the program of a child, which gets the limits as arguments.
    """

    def __init__(
        self,
        workers: int,
        limits: DecodeLimits,
        *,
        seconds: float = 10.0,
        memory_bytes: int = 1 << 30,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        full_command = [*command, str(memory_bytes), *limits.arguments()]
        self._jobs: queue.SimpleQueue[tuple[Future[DecodeOutcome], str] | None] = (
            queue.SimpleQueue()
        )
        self._closing = threading.Lock()
        self._closed = False
        self._kills: dict[str, int] = {}  # by path, of pictures that are tried again
        start, sharing = partial(DecodeChild, full_command, limits), SharedLock()
        self._workers = [ChildWorker(start, seconds, sharing) for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), name="decode", daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, path: str) -> Future[DecodeOutcome]:
        """Ask for one file to be decoded.

        Args:
            path: of the file, as `os.fsdecode` makes it; a symbolic link is not followed.

        Returns:
            A future with `Decoded` or `Unreadable`. It raises `Unavailable` with the cause
            "storage" when the file cannot be read and "decoder" when no child can be started, or
            when it was killed though no other worked: they are no fault of the picture.

        Raises:
            RuntimeError: when the pool is closed.
        """
        future: Future[DecodeOutcome] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the decoder pool is closed")
            self._jobs.put((future, path))
        return future

    def close(self) -> None:
        """End all children at once and wait for that.

        Pictures that were waiting are cancelled; those being decoded end with `Unavailable`.
        """
        with self._closing:
            self._closed = True
        self._cancel_waiting()
        for worker in self._workers:
            self._jobs.put(None)
            worker.stop()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cancel_waiting(self) -> None:
        try:
            while job := self._jobs.get_nowait():
                job[0].cancel()
        except queue.Empty:
            return

    def _serve(self, worker: ChildWorker[DecodedImage]) -> None:
        while job := self._jobs.get():
            future, path = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._outcome(worker, path))
            except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the future
                future.set_exception(error)
        worker.stop()
        worker.drop_child()

    def _outcome(self, worker: ChildWorker[DecodedImage], path: str) -> DecodeOutcome:
        started = time.monotonic()
        found = self._found(worker, path)
        seconds = time.monotonic() - started
        if isinstance(found, Rejection):
            return Unreadable(found, seconds)
        return Decoded(found, seconds)

    def _found(self, worker: ChildWorker[DecodedImage], path: str) -> DecodedImage | Rejection:
        try:
            found = worker.work_on(path)
        except KilledChildError as killed:
            kills = self._kills[path] = self._kills.get(path, 0) + 1
            if kills < MOST_KILLS:
                raise
            found = Rejection("decoder_crash", f"{killed.reason} That was so {kills} times.")
        self._kills.pop(path, None)
        return found
