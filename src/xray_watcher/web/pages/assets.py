"""The style sheet, the scripts and the icon: few, small, and held in memory."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from xray_watcher.web.pages.render import ASSETS, ASSETS_MARK
from xray_watcher.web.refusals import Refused

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_ALWAYS = "public, max-age=31536000, immutable"


async def asset(request: Request) -> Response:
    """One file by its name; its address carries a mark that changes with its content."""
    content = ASSETS.get(request.path_params["name"])
    if content is None:
        raise Refused("not_found", "There is no such file.")
    suffix = request.path_params["name"].rpartition(".")[2]
    is_marked = request.query_params.get("v") == ASSETS_MARK
    return Response(
        content,
        media_type=_TYPES[suffix],
        headers={"Cache-Control": _ALWAYS if is_marked else "no-cache"},
    )
