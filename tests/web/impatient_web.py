"""The real web with short patience, so that tests of slow clients need not be slow.

python tests/web/impatient_web.py serve --config FILE
"""

from __future__ import annotations

import os
import socket

from xray_watcher.cli.main import main
from xray_watcher.web import connections, limits, server, slots

HEAD_S = 1.5
STALL_S = 1.0
TAKEN_BYTES = 20_000
WINDOW_S = 2.0

SEND_BUFFER = int(os.environ.get("XRAY_SEND_BUFFER", "0"))
"""Bytes that the kernel holds for a client, roughly; 0 for as many as it likes."""

_listen = server._listen


def narrow(host: str, port: int) -> socket.socket:
    """Listen; what is accepted has the send buffer of what listens."""
    listening = _listen(host, port)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return listening


if __name__ == "__main__":
    connections.HEAD_S = HEAD_S
    connections.DRAIN_S = HEAD_S
    connections.STALL_S, connections.TAKEN_BYTES = STALL_S, TAKEN_BYTES
    if SEND_BUFFER:
        server._listen = narrow
    limits.PACE_WINDOW_S = WINDOW_S
    slots.SLOT_WAIT_S = 0.5
    main()
