"""Notifies systemd that the service is ready, reloads, stops, and how it is (sd_notify(3)).

The protocol is one datagram of `NAME=value` lines to the socket that NOTIFY_SOCKET names: a file
or, with "@" before it, an abstract one. Without that variable nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


class Systemd:
    """The service manager, if it has set NOTIFY_SOCKET in the environment."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)

    def notify(self, *lines: str) -> None:
        """Send `NAME=value` lines in one datagram; an error is ignored."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to_systemd,
        ):
            to_systemd.setblocking(False)
            to_systemd.sendto("\n".join(lines).encode(), self._address)


def reloading() -> tuple[str, str]:
    """The lines that say that the configuration is being read anew; `READY` ends that."""
    now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return "RELOADING=1", f"MONOTONIC_USEC={now_us}"


def status(text: str) -> str:
    """The line that `systemctl status` shows: one line, whatever the text holds."""
    return f"STATUS={' '.join(text.split())}"
