"""What every test stands on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Hear Ctrl-C, and let the programs that tests start hear it.

    A shell script that starts the tests in the background has them, and all that they start,
    ignore it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
