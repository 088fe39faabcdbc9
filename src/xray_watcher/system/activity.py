"""What a process does now, as the kernel shows it: does it work, or wait for a disk?"""

from __future__ import annotations

import mmap
import signal
import threading
import time
from dataclasses import dataclass, replace

SAYS_EVERY_S = 2.5
"""How often a `Witness` notes what its process waits in."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What the main thread of a process does at a moment.

    Attributes:
        state: as in proc(5): R runs, S and D wait, T is stopped.
        ticks: processor time that it has used, in clock ticks.
        wait: the kernel function it waits in, as far as that may be known.
    """

    state: str
    ticks: int
    wait: str

    def is_stuck_since(self, earlier: Activity) -> bool:
        """Whether it waits since then for something outside its own process."""
        is_waiting = self.state in "SD" and self.ticks == earlier.ticks
        return is_waiting and "futex" not in self.wait


def read_activity(pid: int) -> Activity | None:
    """What a process does; None if it is gone."""
    folder = f"/proc/{pid}/task/{pid}"
    try:
        with open(f"{folder}/stat", "rb") as stat:
            found = parse_stat(stat.read())
    except OSError:
        return None
    return replace(found, wait=_wait_in(folder))


def parse_stat(stat: bytes) -> Activity:
    """From the content of /proc/PID/stat, without `wait`; a program's name may hold anything."""
    fields = stat.rpartition(b")")[2].split()
    return Activity(fields[0].decode(), int(fields[11]) + int(fields[12]), "")


class SharedText:
    """A short text in memory that a process shares with those that are forked from it later."""

    _BYTES = 4096

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, self._BYTES)

    def write(self, text: str) -> None:
        """Replace the text; one that is too long is cut."""
        self._page[:] = text.encode()[: self._BYTES].ljust(self._BYTES, b"\0")

    def read(self) -> str:
        """The text; empty when there is none."""
        return self._page[:].rstrip(b"\0").decode(errors="replace")

    def close(self) -> None:
        """Free the memory, in this process."""
        self._page.close()


class Witness:
    """Notes what the main thread of a process waits in, for the process that forked it.

    Make it before the fork, and start it in the child. It is silent while the child holds Python's
    lock or is stopped.
    """

    def __init__(self) -> None:
        self._said = SharedText()

    def start(self) -> None:
        """Begin, in the child's main thread."""
        folder = f"/proc/self/task/{threading.get_native_id()}"
        threading.Thread(target=self._go_on, args=(folder,), name="witness", daemon=True).start()

    def wait(self) -> str | None:
        """What the main thread waits in; None without a recent note."""
        at_s, _, wait = self._said.read().partition(" ")
        is_fresh = at_s and time.monotonic() - float(at_s) < 4 * SAYS_EVERY_S
        return wait if is_fresh else None

    def close(self) -> None:
        """Free the memory, in the parent."""
        self._said.close()

    def _go_on(self, folder: str) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for others
        while True:
            self._said.write(f"{time.monotonic():.3f} {_wait_in(folder)}")
            time.sleep(SAYS_EVERY_S)


def _wait_in(folder: str) -> str:
    """The kernel function that a thread waits in; empty if it waits in none or that is hidden."""
    try:
        with open(f"{folder}/wchan", "rb") as wchan:
            return wchan.read().decode(errors="replace").removeprefix("0")
    except OSError:
        return ""
