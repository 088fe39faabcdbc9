"""The pages for people, rendered here on the server."""

from __future__ import annotations

from functools import partial

from starlette.routing import BaseRoute

from xray_watcher.web.pages.assets import asset
from xray_watcher.web.pages.batch import BatchPage
from xray_watcher.web.pages.day import DayPages
from xray_watcher.web.pages.image import ImagePages
from xray_watcher.web.pages.live import LivePage
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.pages.results import ResultsPages
from xray_watcher.web.security import SecuredRoute
from xray_watcher.web.slots import Slots
from xray_watcher.web.thumbnails import SIDES, Thumbnails


def routes(pages: Pages, streams: Slots) -> list[BaseRoute]:
    """Every page."""
    context = pages.context
    batch, live, day = BatchPage(pages), LivePage(pages, streams), DayPages(pages)
    results = ResultsPages(pages)
    image = ImagePages(pages, Thumbnails(context))
    part = partial(image.show, template="image_result.html")
    thumbnail, picture = (partial(image.picture, size=size) for size in SIDES)
    return [
        SecuredRoute("/", batch.show, role="view"),
        SecuredRoute("/login", batch.sign_in, role="anyone"),
        SecuredRoute("/live", live.show, role="view"),
        SecuredRoute("/live/events", live.events, role="view"),
        SecuredRoute("/days", day.choose, role="view"),
        SecuredRoute("/days/{day}", day.show, role="view"),
        SecuredRoute("/logs/{log}.csv", partial(day.download, form="csv"), role="view"),
        SecuredRoute("/logs/{log}.jsonl", partial(day.download, form="jsonl"), role="view"),
        SecuredRoute("/results", results.show, role="view"),
        SecuredRoute("/results.csv", results.download_csv, role="view"),
        SecuredRoute("/results.json", results.download_json, role="view"),
        SecuredRoute("/images/{index:index}", image.show, role="view"),
        SecuredRoute("/images/{index:index}/result", part, role="view"),
        SecuredRoute("/images/{index:index}/thumbnail.png", thumbnail, role="view"),
        SecuredRoute("/images/{index:index}/picture.png", picture, role="view"),
        SecuredRoute("/images/{index:index}/retry", image.retry, role="upload", methods=("POST",)),
        SecuredRoute("/static/{name}", asset, role="anyone"),
    ]
