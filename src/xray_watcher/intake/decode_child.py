"""The parent's side of one decoding child process: starts it, talks to it, ends it.

What a child answers is checked as if an attacker wrote it; `decode_worker` has the form of it.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from xray_watcher.core.values import REJECTIONS, Rejection
from xray_watcher.errors import Unavailable
from xray_watcher.intake.images import HALF_RANGE, DecodedImage, DecodeLimits
from xray_watcher.intake.resampling import SIDE

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_OWN_SETTINGS = "XRAY_WATCHER_"  # may hold secrets, and a child needs none of them

_START_SECONDS = 60.0
_END_SECONDS = 2.0
_MAX_HEADER = 4096
_MAX_DETAIL = 500
_PIXEL_BYTES = SIDE * SIDE * 4


class LostChildError(Exception):
    """A child ended, or had to be ended, over a picture; `code` is one of `REJECTIONS`."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class Child:
    """One child process and the frames to and from it; see `decode_worker` for their form."""

    def __init__(self, command: Sequence[str]) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_OWN_SETTINGS)}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=environment | _ONE_THREAD,
                process_group=0,  # a Ctrl-C at the terminal is for the parent alone
            )
        except OSError as error:
            raise Unavailable(
                "decoder", f"The decoder process cannot be started: {error.strerror}."
            ) from error

    def is_running(self) -> bool:
        """Tell whether the process lives; a dead one is reaped by this."""
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

    def decode(
        self, path: bytes, limits: DecodeLimits, wall_seconds: float
    ) -> DecodedImage | Rejection:
        """Have one file decoded.

        Raises:
            LostChildError: when the child crashed, ran out of time, or answered nonsense.
            Unavailable: when the file could not be read, or not in time.
        """
        try:
            self._ask(path, wall_seconds)
            deadline = time.monotonic() + wall_seconds
            return self._outcome(self._answer(deadline, "decoded", "unreadable"), limits, deadline)
        except TimeoutError:
            raise LostChildError(
                "decoder_limit", f"Reading the picture took more than {wall_seconds:g} s."
            ) from None
        except ValueError:
            raise LostChildError(
                "decoder_crash", "The decoder gave an answer without sense."
            ) from None
        except (EOFError, BrokenPipeError):
            raise self._crash() from None

    def kill(self) -> None:
        """End the process at once; any thread may call this."""
        self._process.kill()

    def end(self) -> None:
        """Kill and reap; a child stuck in the kernel over a share is reaped later."""
        self.kill()
        self._exit_status()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, path: bytes, wall_seconds: float) -> None:
        """Hand over the path and wait until the file is in the child's memory."""
        assert self._process.stdin is not None
        self._process.stdin.write(len(path).to_bytes(4, "little") + path)
        try:
            answer = self._answer(time.monotonic() + wall_seconds, "read", "storage")
        except TimeoutError:
            raise Unavailable(
                "storage", f"The file could not be read within {wall_seconds:g} s."
            ) from None
        if answer["status"] == "storage":
            raise Unavailable("storage", f"The file cannot be read: {_text(answer, 'detail')}.")

    def _outcome(
        self, answer: dict[str, Any], limits: DecodeLimits, deadline: float
    ) -> DecodedImage | Rejection:
        if answer["status"] == "unreadable":
            code = _text(answer, "code")
            if code not in REJECTIONS:
                raise ValueError(code)
            return Rejection(code, _text(answer, "detail"))
        width, height = _side(answer, "width", limits), _side(answer, "height", limits)
        pixels = np.frombuffer(self._frame(_PIXEL_BYTES, deadline), dtype="<f4")
        if pixels.size != SIDE * SIDE or not np.all(np.abs(pixels) <= HALF_RANGE):  # NaN fails too
            raise ValueError("pixels")
        return DecodedImage(pixels.astype(np.float32).reshape(1, SIDE, SIDE), width, height)

    def _answer(self, deadline: float, *expected: str) -> dict[str, Any]:
        try:
            answer = json.loads(self._frame(_MAX_HEADER, deadline))
        except RecursionError:
            raise ValueError("nested") from None
        if not isinstance(answer, dict) or answer.get("status") not in expected:
            raise ValueError("status")
        return answer

    def _frame(self, at_most: int, deadline: float) -> bytes:
        length = int.from_bytes(self._exactly(4, deadline), "little")
        if length > at_most:
            raise ValueError("length")
        return self._exactly(length, deadline)

    def _exactly(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        received = bytearray()
        while len(received) < count:
            if not poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000))):
                raise TimeoutError
            part = os.read(self._process.stdout.fileno(), count - len(received))
            if not part:
                raise EOFError
            received += part
        return bytes(received)

    def _crash(self) -> LostChildError:
        if self._exit_status() == -signal.SIGXCPU:
            return LostChildError(
                "decoder_limit", "Reading the picture took too much processor time."
            )
        return LostChildError(
            "decoder_crash", f"The decoder process ended ({self._how_it_ended()})."
        )

    def _how_it_ended(self) -> str:
        status = self._exit_status()
        if status is None:
            return "it does not answer"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def _exit_status(self) -> int | None:
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None


def _text(answer: dict[str, Any], key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str) or len(value) > _MAX_DETAIL or not value.isprintable():
        raise ValueError(key)
    return value


def _side(answer: dict[str, Any], key: str, limits: DecodeLimits) -> int:
    value = answer.get(key)
    if type(value) is not int or not limits.min_side <= value <= limits.max_side:
        raise ValueError(key)
    return value
