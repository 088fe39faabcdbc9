"""The child process that decodes: everything a hostile picture can reach runs in here.

Started by `decoding.DecodePool` as `python -m xray_watcher.intake.decode_worker MEMORY SECONDS`
and the arguments that `DecodeLimits.arguments` gives. On its standard input come paths, on its
standard output go answers; both as frames, a length in four bytes, little endian, and then as many
bytes. An answer is a JSON object with a `status`; after "decoded" the float32 pixels follow, little
endian, in a frame of their own (`preview_worker` sends grey ones instead). There is no pickle, so
that a child that was taken over can at worst give wrong pixels.

    ready                         once, when the limits hold
    read                          the file is in memory; from here on the picture is to blame
    decoded width height          and the pixels
    unreadable code detail        the picture's fault
    storage detail                the file could not be read: no fault of the picture
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

from xray_watcher.errors import UnreadableImage
from xray_watcher.intake.images import DecodeLimits, decode

Header: TypeAlias = dict[str, str | int]
Task: TypeAlias = Callable[[bytes, DecodeLimits], tuple[Header, bytes]]
"""From the content of a file to the rest of its header and to the frame that follows."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OOM_SCORE = b"800"  # the kernel's out-of-memory killer takes this process long before the daemon
_NICENESS = 10  # scoring goes first; at 19, any other busy program would starve the decoders
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def for_the_network(data: bytes, limits: DecodeLimits) -> tuple[Header, bytes]:
    """The pixels that the network takes."""
    image = decode(data, limits)
    return {"width": image.width, "height": image.height}, image.pixels.astype("<f4").tobytes()


def main(arguments: list[str], task: Task, niceness: int = _NICENESS) -> None:
    """Answer one path after the other until standard input ends, which is when the parent ends.

    Args:
        arguments: memory and seconds that it may take, and the limits of a picture.
        task: what is done with a file.
        niceness: how far it steps back behind others who want the cores.
    """
    memory, seconds, *rest = arguments
    limits = DecodeLimits.from_arguments(rest)
    _outlive_signals_but_not_the_parent()
    _step_back(niceness)
    _confine(int(memory))
    answers = sys.stdout.buffer
    _answer(answers, {"status": "ready"})
    while path := _next_path(sys.stdin.buffer):
        _renew_cpu_limit(float(seconds))
        _work_on(path, limits, answers, task)


def _work_on(path: bytes, limits: DecodeLimits, answers: BinaryIO, task: Task) -> None:
    try:
        data = _content(path, limits.max_bytes + 1)
        _answer(answers, {"status": "read"})
        header, frame = task(data, limits)
    except UnreadableImage as error:
        _answer(answers, {"status": "unreadable", "code": error.code, "detail": error.detail})
    except MemoryError:  # already over the file itself
        detail = "Reading the file needs more memory than the decoder may use."
        _answer(answers, {"status": "unreadable", "code": "decoder_limit", "detail": detail})
    except OSError as error:
        _answer(answers, {"status": "storage", "detail": error.strerror or type(error).__name__})
    else:
        _answer(answers, {"status": "decoded", **header})
        _send(answers, frame)


def _content(path: bytes, at_most: int) -> bytes:
    with open(os.open(path, _OPEN_FLAGS), "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a regular file")
        return _read_up_to(file.fileno(), min(found.st_size + 1, at_most))


def _read_up_to(descriptor: int, at_most: int) -> bytes:
    parts = []
    while at_most and (part := os.read(descriptor, at_most)):
        parts.append(part)
        at_most -= len(part)
    return b"".join(parts)


def _next_path(requests: BinaryIO) -> bytes:
    length = requests.read(4)
    return requests.read(int.from_bytes(length, "little"))


def _answer(answers: BinaryIO, header: Header) -> None:
    _send(answers, json.dumps(header).encode())


def _send(answers: BinaryIO, frame: bytes) -> None:
    answers.write(len(frame).to_bytes(4, "little") + frame)
    answers.flush()


def _outlive_signals_but_not_the_parent() -> None:
    """A stop of the service lets the picture at hand come to its end; the parent ends us then."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _step_back(niceness: int) -> None:
    with contextlib.suppress(OSError):  # a filter of system calls may refuse it
        os.nice(niceness)


def _confine(memory: int) -> None:
    """Take from this process what decoding does not need; the kernel holds it to that."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as score:
        score.write(_OOM_SCORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _renew_cpu_limit(seconds: float) -> None:
    """Going over it ends the process with SIGXCPU; the limit counts from the process's start."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


if __name__ == "__main__":
    main(sys.argv[1:], for_the_network)
