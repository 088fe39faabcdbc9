"""A child process that works on one file after the other, so that a hostile one can end it at most.

A `Child` is the parent's side of one process: it starts it, hands it open files over a socket,
reads its answers in frames (a length in four bytes, little endian, and then as many bytes) and ends
it; what it answers is checked as if an attacker wrote it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import resource
import select
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from xray_watcher.core.values import REJECTIONS, Rejection
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.opening import OpenFile
from xray_watcher.system.worker import describe_exit, start_child

Result = TypeVar("Result")

_START_SECONDS = 60.0
_END_SECONDS = 2.0
READ_FACTOR = 3.0
"""Times the limit of processor time: how long a file may take on the clock to be read."""
# Likewise, to be answered for; and by a child that steps back behind others and waits for a core.
_WALL_FACTOR, _STARVED_FACTOR = 3.0, 100.0
_PIPE_BYTES = 1 << 18  # an answer fits, so that it takes one write and few reads
_SIZE_BYTES = 8  # of a file's size, in the message that hands it over
_CPUCLOCK_SCHED = 2
_MAX_HEADER = 4096
_MAX_DETAIL = 500


class LostChildError(Exception):
    """A child ended, or had to be ended, over a picture; `code` is one of `REJECTIONS`."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class KilledChildError(Unavailable):
    """A child was killed from outside, as the kernel does when memory is short.

    That says nothing of the picture while others were at work, and little when none was.
    """

    def __init__(self) -> None:
        super().__init__(
            "decoder",
            "A decoder was killed (SIGKILL), even while no other worked: memory is short, on the "
            "machine or within the service's limit (MemoryMax).",
        )


class Child(ABC, Generic[Result]):
    """One child process and what goes to and comes from it; see `decode_worker` for the form."""

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._requests, theirs = socket.socketpair()
        except OSError as error:
            raise _no_start(error) from error
        try:
            self._process = start_child(command, theirs.fileno())
        except OSError as error:
            self._requests.close()
            raise _no_start(error) from error
        finally:
            theirs.close()
        self._state = _state_file(self._process.pid)
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # the user's share of the kernel's memory is used up
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def is_running(self) -> bool:
        """Whether the process lives; a dead one is reaped by this."""
        return self._process.poll() is None

    def await_start(self) -> None:
        """Wait until the child has set its limits.

        Raises:
            Unavailable: with the cause "decoder" when it ended, or did not get there in time.
        """
        try:
            self._answer(time.monotonic() + _START_SECONDS, "ready")
        except (TimeoutError, EOFError, ValueError):
            raise Unavailable(
                "decoder",
                "The decoder process does not start; its error output says why "
                f"({self._how_it_ended()}).",
            ) from None

    def work_on(self, file: OpenFile, seconds: float) -> Result | Rejection:
        """Have one file worked on.

        Args:
            file: is closed here, and read by the child.
            seconds: of processor time that it may take.

        Raises:
            LostChildError: when the child crashed, ran out of time, or answered nonsense.
            KilledChildError: when somebody killed it.
            Unavailable: when the file could not be read, or not in time.
        """
        wall_seconds = seconds * _WALL_FACTOR
        try:
            self._limit_processor_time(seconds)
            self._ask(file, seconds * READ_FACTOR)
            self._await_answer(wall_seconds, time.monotonic() + seconds * _STARVED_FACTOR)
            return self._outcome(time.monotonic() + wall_seconds)
        except TimeoutError:
            raise LostChildError(
                "decoder_limit", f"Reading the picture took more than {wall_seconds:g} s."
            ) from None
        except ValueError:
            raise LostChildError(
                "decoder_crash", "The decoder gave an answer without sense."
            ) from None
        except (EOFError, ConnectionError):
            raise self._crash() from None

    def kill(self) -> None:
        """End the process at once; any thread may call this."""
        self._process.kill()

    def end(self) -> None:
        """Kill and reap; a child stuck in the kernel over a share is reaped later."""
        self.kill()
        self._exit_status()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._requests.close()
        if self._state is not None:
            os.close(self._state)
            self._state = None

    def _limit_processor_time(self, seconds: float) -> None:
        """Going over it ends the child with SIGXCPU; the limit counts from the process's start.

        It is set from here, so that the child cannot set another.
        """
        pid = self._process.pid
        with contextlib.suppress(OSError):  # it has ended, which is seen in a moment
            until = math.ceil(time.clock_gettime(_processor_clock(pid)) + seconds)
            _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
            soft = until if hard == resource.RLIM_INFINITY else min(until, hard)
            resource.prlimit(pid, resource.RLIMIT_CPU, (soft, hard))

    def _ask(self, file: OpenFile, wall_seconds: float) -> None:
        """Hand over the file and wait until it is in the child's memory."""
        try:
            size = file.size.to_bytes(_SIZE_BYTES, "little")
            socket.send_fds(self._requests, [size], [file.descriptor])
        finally:
            os.close(file.descriptor)
        try:
            answer = self._answer(time.monotonic() + wall_seconds, "read", "storage")
        except TimeoutError:
            raise Unavailable(
                "storage", f"The file could not be read within {wall_seconds:g} s."
            ) from None
        if answer["status"] == "storage":
            raise Unavailable(
                "storage", f"The file cannot be read: {self._text(answer, 'detail')}."
            )

    def _await_answer(self, wall_seconds: float, until: float) -> None:
        """Wait for the first byte; a child that only waits for a core is given more time.

        The kernel ends one that takes too much processor time.
        """
        while not self._says_something(wall_seconds):
            if time.monotonic() > until or not self._wants_a_core():
                raise TimeoutError

    def _checked_number(self, answer: dict[str, Any], key: str, least: int, most: int) -> int:
        value = answer.get(key)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(key)
        return value

    def _says_something(self, seconds: float) -> bool:
        """Whether there is something to read, or the end, within that time."""
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        return bool(poll.poll(max(0, math.ceil(seconds * 1000))))

    def _wants_a_core(self) -> bool:
        """Whether the child is running or would (proc(5)), instead of waiting for anything else."""
        if self._state is None:
            return False
        try:
            return os.pread(self._state, 4096, 0).rpartition(b")")[2].split()[0] == b"R"
        except OSError:
            return False

    def _outcome(self, deadline: float) -> Result | Rejection:
        answer = self._answer(deadline, "decoded", "unreadable", "failed")
        if answer["status"] == "decoded":
            return self._result(answer, deadline)
        if answer["status"] == "failed":
            detail = self._text(answer, "detail")
            raise LostChildError("decoder_crash", f"The decoder failed ({detail}).")
        code = self._text(answer, "code")
        if code not in REJECTIONS:
            raise ValueError(code)
        return Rejection(code, self._text(answer, "detail"))

    @abstractmethod
    def _result(self, answer: dict[str, Any], deadline: float) -> Result:
        """Take the rest of an answer with the status "decoded".

        Raises:
            ValueError: it makes no sense.
            TimeoutError: it does not come before the deadline.
            EOFError: the child has ended.
        """

    def _answer(self, deadline: float, *expected: str) -> dict[str, Any]:
        try:
            answer = json.loads(self._frame(_MAX_HEADER, deadline))
        except RecursionError:
            raise ValueError("nested") from None
        if not isinstance(answer, dict) or answer.get("status") not in expected:
            raise ValueError("status")
        return answer

    def _frame(self, at_most: int, deadline: float) -> bytearray:
        length = int.from_bytes(self._exactly(4, deadline), "little")
        if length > at_most:
            raise ValueError("length")
        return self._exactly(length, deadline)

    def _exactly(self, count: int, deadline: float) -> bytearray:
        assert self._process.stdout is not None
        received = bytearray(count)
        missing = memoryview(received)
        while missing:
            if not self._says_something(deadline - time.monotonic()):
                raise TimeoutError
            got = os.readv(self._process.stdout.fileno(), [missing])
            if not got:
                raise EOFError
            missing = missing[got:]
        return received

    def _text(self, answer: dict[str, Any], key: str) -> str:
        value = answer.get(key)
        if not isinstance(value, str) or len(value) > _MAX_DETAIL or not value.isprintable():
            raise ValueError(key)
        return value

    def _crash(self) -> LostChildError | KilledChildError:
        status = self._exit_status()
        if status == -signal.SIGKILL:
            return KilledChildError()
        if status == -signal.SIGXCPU:
            return LostChildError(
                "decoder_limit", "Reading the picture took too much processor time."
            )
        return LostChildError(
            "decoder_crash",
            "The picture ended the program that reads it, which is a fault of ours "
            f"({self._how_it_ended()}). Save it anew, in another program.",
        )

    def _how_it_ended(self) -> str:
        status = self._exit_status()
        return "it does not answer" if status is None else describe_exit(status)

    def _exit_status(self) -> int | None:
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None


def _no_start(error: OSError) -> Unavailable:
    return Unavailable("decoder", f"The decoder process cannot be started: {error.strerror}.")


def _state_file(pid: int) -> int | None:
    """An open /proc/PID/stat.

    It is opened while the child is young: once that is opaque (`system.sandbox`), the unit's
    ProtectProc=invisible hides it from its own parent.
    """
    try:
        return os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _processor_clock(pid: int) -> int:
    """The clock of a process's processor time (linux/posix-timers_types.h); it needs no /proc."""
    return ~pid << 3 | _CPUCLOCK_SCHED
