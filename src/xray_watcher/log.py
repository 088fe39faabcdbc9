"""The service's own log: structlog to stderr, JSON unless a person looks at it.

Results are records, not log lines: they go to the JSONL and CSV files. Nothing here names
a file or a patient at INFO.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import structlog
from structlog.types import EventDict

from xray_watcher.core.naming import one_line


def set_up(level: str) -> None:
    """Set up structlog for this process.

    Args:
        level: "debug", "info" or "warning".
    """
    for_person = sys.stderr.isatty()
    # It calls its own orderly end an error; whether it lives is seen to in `intake.watcher`.
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)
    renderers: list[Any] = (
        [_speechless, structlog.dev.ConsoleRenderer()]
        if for_person
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not for_person),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lambda *_names: _Lines(),
        cache_logger_on_first_use=False,
    )


def _speechless(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape what could speak to the terminal; the renderer's own colours come after it."""
    return {key: one_line(text) if isinstance(text, str) else text for key, text in event.items()}


def log_crash(error: Exception) -> None:
    """Log an error that nobody expected: its kind and where it arose, outermost call first.

    Its message is left out, for it may name a file, and a file's name a patient.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames]
    structlog.get_logger().error(
        "crashed: please report this",
        code="crashed",
        kind=type(error).__name__,
        errno=getattr(error, "errno", None),
        where=where,
    )


class _Lines:
    """Writes each line with one call, so that those of several threads do not mix.

    A log that cannot be written, as on a disk that is full, is no reason to stop: results do not
    stand in it, and `status` tells how things are.
    """

    def _write(self, line: str) -> None:
        with suppress(OSError):
            os.write(sys.stderr.fileno(), f"{line}\n".encode(errors="backslashreplace"))

    debug = info = warning = error = critical = _write
