"""The pages for people, rendered here on the server."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from xray_watcher.errors import LedgerError
from xray_watcher.web.context import WebContext
from xray_watcher.web.pages.assets import asset
from xray_watcher.web.pages.batch import BatchPage
from xray_watcher.web.pages.day import DayPages
from xray_watcher.web.pages.image import ImagePages
from xray_watcher.web.pages.live import LivePage
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.security import Endpoint, SecuredRoute
from xray_watcher.web.thumbnails import Thumbnails


def _shown(pages: Pages, endpoint: Endpoint) -> Endpoint:
    """Say on a page, not in JSON, that the ledger cannot be read."""

    async def shown(request: Request) -> Response:
        try:
            return await endpoint(request)
        except LedgerError as error:
            return await pages.missing(request, str(error), 503)

    return shown


def routes(context: WebContext) -> list[BaseRoute]:
    """Every page."""
    pages = Pages(context)
    batch, live, day = BatchPage(pages), LivePage(pages), DayPages(pages)
    image = ImagePages(pages, Thumbnails(context))
    return [
        SecuredRoute("/", batch.show, role="view"),
        SecuredRoute("/login", batch.sign_in, role="anyone"),
        SecuredRoute("/live", _shown(pages, live.show), role="view"),
        SecuredRoute("/live/events", live.events, role="view"),
        SecuredRoute("/days", day.choose, role="view"),
        SecuredRoute("/days/{day}", _shown(pages, day.show), role="view"),
        SecuredRoute("/logs/{log}.csv", day.download_csv, role="view"),
        SecuredRoute("/logs/{log}.jsonl", day.download_jsonl, role="view"),
        SecuredRoute("/images/{index:index}", _shown(pages, image.show), role="view"),
        SecuredRoute("/images/{index:index}/result", _shown(pages, image.result), role="view"),
        SecuredRoute("/images/{index:index}/thumbnail.png", image.thumbnail, role="view"),
        SecuredRoute("/images/{index:index}/picture.png", image.picture, role="view"),
        SecuredRoute("/images/{index:index}/retry", image.retry, role="upload", methods=("POST",)),
        SecuredRoute("/static/{name}", asset, role="anyone"),
    ]
