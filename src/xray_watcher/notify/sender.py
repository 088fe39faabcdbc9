"""Sends messages in threads, one for each channel, so that none waits for another.

The daemon's loop hands messages over and takes results back; it never waits here, and no thread
touches the ledger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from xray_watcher import log
from xray_watcher.notify.channels import Channel, DeliveryFailed


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt; `error` is None when the message was taken."""

    channel: str
    message_id: str
    error: str | None


_Job = tuple[str, str, bytes]


class Sender:
    """The threads; each is started with its first message.

    Args:
        channels: by name.
        ring: wakes the loop when there is a result.
    """

    def __init__(self, channels: Mapping[str, Channel], wake: Callable[[], None]) -> None:
        self._channels = channels
        self._ring = wake
        self._jobs: dict[str, SimpleQueue[_Job | None]] = {}
        self._threads: list[threading.Thread] = []
        self._results: SimpleQueue[Result] = SimpleQueue()
        self._ringing = threading.Lock()
        self._is_stopped = False

    def send(self, channel: str, message_id: str, event: str, body: bytes) -> None:
        """Hand a message over to its channel's thread."""
        if channel not in self._jobs:
            self._jobs[channel] = SimpleQueue()
            thread = threading.Thread(
                target=self._work, args=(channel,), name=f"notify-{channel}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._jobs[channel].put((message_id, event, body))

    @property
    def has_results(self) -> bool:
        """Whether there is a result to take."""
        return not self._results.empty()

    def results(self) -> Iterator[Result]:
        """The results that are there."""
        while True:
            try:
                yield self._results.get_nowait()
            except Empty:
                return

    def stop(self, seconds: float) -> None:
        """Let the attempts that are under way end, for that long; then leave the threads alone."""
        until_s = time.monotonic() + seconds
        for jobs in self._jobs.values():
            jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        with self._ringing:
            self._is_stopped = True

    def _work(self, channel: str) -> None:
        jobs = self._jobs[channel]
        while (job := jobs.get()) is not None:
            self._results.put(Result(channel, job[0], self._attempt(channel, job)))
            with self._ringing:
                if not self._is_stopped:
                    self._ring()

    def _attempt(self, channel: str, job: _Job) -> str | None:
        try:
            self._channels[channel].send(*job)
        except DeliveryFailed as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the thread
            log.log_crash(error)
            return f"{type(error).__name__} in xray-watcher itself"
        return None
