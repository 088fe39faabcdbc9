"""Runs the web application."""

from __future__ import annotations

import uvicorn

from xray_watcher.clock import SystemClock
from xray_watcher.config import Settings
from xray_watcher.web.app import create_app


def serve(settings: Settings) -> None:
    """Answer requests until SIGTERM or SIGINT."""
    web = settings.web
    uvicorn.run(
        create_app(settings, SystemClock()),
        host=web.host,
        port=web.port,
        log_config=None,
        access_log=False,
        server_header=False,
    )
