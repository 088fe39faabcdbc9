"""The routes of the API."""

from __future__ import annotations

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from xray_watcher.web.context import WebContext
from xray_watcher.web.security import SecuredRoute


def routes(context: WebContext) -> list[BaseRoute]:
    """Every route of the API."""

    async def health(_request: Request) -> Response:
        state = await run_sync(context.daemon_state)
        return JSONResponse(
            {"healthy": state.healthy, "alive": state.alive, "troubles": state.troubles},
            status_code=200 if state.healthy else 503,
        )

    return [SecuredRoute("/healthz", health, role="anyone")]
