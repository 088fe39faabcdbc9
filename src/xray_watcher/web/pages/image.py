"""One image: its page, its picture in two sizes, and another try for a rejected one."""

from __future__ import annotations

from dataclasses import dataclass

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from xray_watcher.commands.retry import put_back
from xray_watcher.core.image_record import ImageRecord
from xray_watcher.core.times import from_us, local_day
from xray_watcher.errors import XrayWatcherError
from xray_watcher.ledger.results_queries import find_neighbours
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.pages.views import image_view
from xray_watcher.web.refusals import Refused
from xray_watcher.web.results_query import ListQuery, list_query
from xray_watcher.web.thumbnails import NoPicture, Size, Thumbnails

_UNKNOWN = "No image has the index {index}, or it is still pending. The live page shows the latest."


@dataclass(frozen=True, slots=True)
class _Found:
    """The record of an index, and what lies around it."""

    record: ImageRecord
    before: int | None
    after: int | None
    was_retried: bool
    removed_us: int | None


class ImagePages:
    """The routes of one image."""

    def __init__(self, pages: Pages, thumbnails: Thumbnails) -> None:
        self._pages = pages
        self._thumbnails = thumbnails

    async def picture(self, request: Request, size: Size) -> Response:
        """The picture in one of its sizes."""
        index = request.path_params["index"]
        try:
            png = await self._thumbnails.png(index, size, request.is_disconnected)
        except NoPicture as error:
            raise Refused("no_picture", str(error)) from error
        return Response(
            png,
            media_type="image/png",
            headers={"Content-Disposition": f'inline; filename="{index:04d}-{size}.png"'},
        )

    async def retry(self, request: Request) -> Response:
        """Put a rejected file back for another try, and say so on the live page."""
        index = request.path_params["index"]
        settings = self._pages.context.settings
        now = self._pages.now()
        try:
            (outcome,) = await run_sync(lambda: put_back(settings, [str(index)], now, every=False))
        except (XrayWatcherError, OSError) as error:
            raise _not_put_back(str(error)) from error
        if outcome.problem is not None:
            raise _not_put_back(outcome.problem)
        return RedirectResponse(f"/live?put_back={index}#rejected", status_code=303)

    async def show(self, request: Request, template: str = "image.html") -> Response:
        """One result in full; another template shows a part of it."""
        index = request.path_params["index"]
        in_list = _list_of(request)
        found = await run_sync(self._find, index, in_list)
        if found is None:
            raise Refused("not_found", _UNKNOWN.format(index=index))
        settings = self._pages.context.settings
        view = image_view(found.record, settings.risk_rules(), settings.zone)
        return await self._pages.page(
            request,
            template,
            image=view,
            record=found.record,
            timings=vars(found.record.timings_ms),
            before=found.before,
            after=found.after,
            address=in_list and in_list.address,
            was_retried=found.was_retried,
            removed_on=found.removed_us and local_day(from_us(found.removed_us), settings.zone),
            simulations=[view.simulation],
        )

    def _find(self, index: int, in_list: ListQuery | None) -> _Found | None:
        ledger = self._pages.ledger()
        if ledger is None:
            return None
        with ledger:
            record = ledger.record(index)
            if record is None:
                return None
            row = ledger.image_with_index(index)
            around = (
                ledger.indexes_around(index)
                if in_list is None
                else find_neighbours(ledger, in_list.filter, in_list.sort, index)
            )
            return _Found(
                record,
                *around,
                was_retried=ledger.was_retried(index),
                removed_us=None if row is None else row.removed_us,
            )


def _list_of(request: Request) -> ListQuery | None:
    """The list that somebody came from, or None."""
    return list_query(request.query_params) if "sort" in request.query_params else None


def _not_put_back(why: str) -> Refused:
    return Refused("not_put_back", f"It could not be put back: {why}")
