"""The pages for people, rendered here on the server."""

from __future__ import annotations

from starlette.routing import BaseRoute

from xray_watcher.web.pages.assets import asset
from xray_watcher.web.pages.batch import BatchPage
from xray_watcher.web.pages.day import DayPages
from xray_watcher.web.pages.image import ImagePages
from xray_watcher.web.pages.live import LivePage
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.security import SecuredRoute
from xray_watcher.web.slots import Slots
from xray_watcher.web.thumbnails import Thumbnails


def routes(pages: Pages, streams: Slots) -> list[BaseRoute]:
    """Every page.

    Args:
        streams: places for live pages that are kept up to date.
    """
    context = pages.context
    batch, live, day = BatchPage(pages), LivePage(pages, streams), DayPages(pages)
    image = ImagePages(pages, Thumbnails(context))
    return [
        SecuredRoute("/", batch.show, role="view"),
        SecuredRoute("/login", batch.sign_in, role="anyone"),
        SecuredRoute("/live", live.show, role="view"),
        SecuredRoute("/live/events", live.events, role="view"),
        SecuredRoute("/days", day.choose, role="view"),
        SecuredRoute("/days/{day}", day.show, role="view"),
        SecuredRoute("/logs/{log}.csv", day.download_csv, role="view"),
        SecuredRoute("/logs/{log}.jsonl", day.download_jsonl, role="view"),
        SecuredRoute("/images/{index:index}", image.show, role="view"),
        SecuredRoute("/images/{index:index}/result", image.result, role="view"),
        SecuredRoute("/images/{index:index}/thumbnail.png", image.thumbnail, role="view"),
        SecuredRoute("/images/{index:index}/picture.png", image.picture, role="view"),
        SecuredRoute("/images/{index:index}/retry", image.retry, role="upload", methods=("POST",)),
        SecuredRoute("/static/{name}", asset, role="anyone"),
    ]
