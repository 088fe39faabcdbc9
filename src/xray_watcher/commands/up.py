"""`xray-watcher up`: the daemon and the web side by side, for a workstation.

Each is a process of its own, as under systemd; when one ends, for whatever reason, the other is
ended too, and when this one is killed the kernel ends both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import BinaryIO

import structlog

from xray_watcher.service.supervisor import end_with

_POLL_S = 0.1
_GRACE_S = 15.0

_log = structlog.get_logger()


def run_both(commands: Sequence[Sequence[str]]) -> int:
    """Run commands of ours until one ends or a signal comes, then end the others.

    SIGHUP is passed on to each.

    Args:
        commands: as they would follow `xray-watcher`.

    Returns:
        The first exit code that is not 0, else 0.
    """
    with _signals_noted() as noted:
        processes = [start_command(command) for command in commands]

        def reload(_number: int, _frame: FrameType | None) -> None:
            for process in processes:
                process.send_signal(signal.SIGHUP)  # with a terminal it ends them

        signal.signal(signal.SIGHUP, reload)
        while not noted and all(process.poll() is None for process in processes):
            time.sleep(_POLL_S)
        ended = [process for process in processes if process.poll() is not None]
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            _wait(process)
    codes = [process.returncode for process in [*ended, *processes]]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


def start_command(command: Sequence[str], log: BinaryIO | None = None) -> subprocess.Popen[bytes]:
    """Start a command of ours that ends when this process does.

    Args:
        command: as it would follow `xray-watcher`.
        log: where its log goes; None for where ours goes.
    """
    parent = os.getpid()
    return subprocess.Popen(
        [sys.executable, "-m", "xray_watcher", *command],
        stderr=log,
        process_group=0,  # Ctrl-C reaches this process alone, which ends the others in order
        preexec_fn=lambda: end_with(parent),  # noqa: PLW1509 - no thread runs here
    )


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _log.error("killed: it did not end in time", code="process_killed", process=process.pid)
        process.kill()
        process.wait()


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Note signals that ask to end; the second one is obeyed at once, by the kernel's help."""
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if noted:
            os._exit(128 + number)
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
