"""The pages for people, rendered here on the server."""

from __future__ import annotations

from starlette.routing import BaseRoute

from xray_watcher.web.context import WebContext


def routes(context: WebContext) -> list[BaseRoute]:  # noqa: ARG001 - the pages come next
    """Every page."""
    return []
