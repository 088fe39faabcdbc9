"""The live page, and the stream of events that keeps it up to date."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from xray_watcher.commands.status import DaemonState, collect_status
from xray_watcher.web.authentication import may_still, sender
from xray_watcher.web.pages.figures import Today, load_today
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.pages.views import ImageView, image_view
from xray_watcher.web.slots import Slots

LATEST_SHOWN = 16
_EVERY_S = 1.0
_INDEX = re.compile("[0-9]{1,18}")  # as in a path; anything else is no event of ours
_DISKS_EVERY_S = 15.0  # asks every disk, each in a process of its own
_BEAT_S = 15.0

REGIONS = ("service", "banners", "state", "counts", "highs", "conditions", "hours", "rejected")
"""Parts of the page that are replaced when they have changed; each has a template.

The first two stand at the head of every page.
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """All that the live page shows, as it was at one moment."""

    state: DaemonState
    free_bytes: Mapping[str, int]
    today: Today | None
    latest: tuple[ImageView, ...]

    @property
    def simulations(self) -> tuple[str, ...]:
        """What must be said of the networks that scored the newest images."""
        return tuple(
            view.simulation for view in (*self.latest, *(self.today.highs if self.today else ()))
        )


class LiveFeed:
    """Takes the moments for all viewers together, at most one a second."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._taking = asyncio.Lock()
        self._taken_s = float("-inf")
        self._moment: Moment | None = None
        self._disks_s = float("-inf")
        self._free_bytes: Mapping[str, int] = {}

    async def moment(self) -> Moment:
        """How things are, no older than a second."""
        async with self._taking:
            if self._moment is None or time.monotonic() - self._taken_s >= _EVERY_S:
                self._moment = await run_sync(self._take)
                self._taken_s = time.monotonic()
            return self._moment

    async def events(
        self, is_over: Callable[[], bool], *, may_upload: bool, last_index: int
    ) -> AsyncIterator[str]:
        """Server-sent events for one viewer, until it goes away or has seen all that it may.

        Args:
            is_over: whether the server is about to end, or the viewer would not be let in now.
            may_upload: whether it may put rejected files back.
            last_index: the newest image that it has; those behind it are sent first.
        """
        viewer = _Viewer(self._pages, may_upload=may_upload, last_index=last_index)
        while not is_over():
            for event in await run_sync(viewer.news, await self.moment()):
                yield event
            await asyncio.sleep(_EVERY_S)

    def _take(self) -> Moment:
        settings = self._pages.context.settings
        if time.monotonic() - self._disks_s >= _DISKS_EVERY_S:
            self._free_bytes = collect_status(settings, self._pages.now())["free_bytes"]
            self._disks_s = time.monotonic()
        state = self._pages.context.daemon_state()
        ledger = self._pages.ledger()
        if ledger is None:
            return Moment(state, self._free_bytes, None, ())
        rules, zone, day = settings.risk_rules(), settings.zone, self._pages.today()
        with ledger:
            latest = ledger.latest(LATEST_SHOWN)
            today = load_today(ledger, day, rules, zone)
        views = tuple(image_view(record, rules, zone) for record in latest)
        return Moment(state, self._free_bytes, today, views)


class _Viewer:
    """What one live page has received; it gets only what is new."""

    def __init__(self, pages: Pages, *, may_upload: bool, last_index: int) -> None:
        self._pages = pages
        self._may_upload = may_upload
        self._known: dict[str, Markup] = {}
        self._last_index = last_index
        self._sent_s = time.monotonic()

    def news(self, moment: Moment) -> list[str]:
        """The events since the last call; a beat when there was nothing for long."""
        events = [*self._images(moment), *self._regions(moment)]
        if events:
            self._sent_s = time.monotonic()
        elif time.monotonic() - self._sent_s >= _BEAT_S:
            self._sent_s = time.monotonic()
            return [": still here\n\n"]
        return events

    def _images(self, moment: Moment) -> list[str]:
        new = [view for view in reversed(moment.latest) if view.index > self._last_index]
        if new:
            self._last_index = new[-1].index
        return [
            _event(
                "image",
                {
                    "index": view.index,
                    "level": view.level,
                    "words": view.sentence,
                    "html": self._pages.fragment("live_image.html", image=view, is_new=True),
                },
                view.index,
            )
            for view in new
        ]

    def _regions(self, moment: Moment) -> list[str]:
        events = []
        for name, html in regions(self._pages, moment, may_upload=self._may_upload).items():
            if self._known.get(name) != html:
                self._known[name] = html
                events.append(_event("region", {"name": name, "html": html}))
        return events


def regions(pages: Pages, moment: Moment, *, may_upload: bool) -> dict[str, Markup]:
    """The parts of the page that change, rendered."""
    values = {
        "state": moment.state,
        "banners": pages.banners(moment.state, moment.simulations),
        "moment": moment,
        "may_upload": may_upload,
        "now": pages.now(),
    }
    return {name: pages.fragment(f"live_{name}.html", **values) for name in REGIONS}


class LivePage:
    """The routes of the live page."""

    def __init__(self, pages: Pages, streams: Slots) -> None:
        self._pages = pages
        self._streams = streams
        self._feed = LiveFeed(pages)

    async def show(self, request: Request) -> Response:
        """The page as it is now; it goes on by itself where scripts run."""
        moment = await self._feed.moment()
        may_upload = sender(request).may("upload")
        return await self._pages.page(
            request,
            "live.html",
            moment=moment,
            moment_at=self._pages.now(),
            latest_shown=LATEST_SHOWN,
            regions=regions(self._pages, moment, may_upload=may_upload),
            put_back=request.query_params.get("put_back", ""),
            simulations=moment.simulations,
        )

    async def events(self, request: Request) -> Response:
        """What changes, as server-sent events."""
        slot = self._streams.take(sender(request).keys)  # before anything is waited for
        known = request.headers.get("last-event-id") or request.query_params.get("after") or ""
        last_index = int(known) if _INDEX.fullmatch(known) else -1
        events = self._feed.events(
            lambda: slot.is_ended or request.app.state.is_ending or not may_still(request),
            may_upload=sender(request).may("upload"),
            last_index=last_index,
        )
        return _Stream(events, partial(self._streams.leave, slot))


class _Stream(StreamingResponse):
    """A stream of events that gives its place back, even if nothing of it was ever sent."""

    def __init__(self, events: AsyncIterator[str], leave: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


def _event(name: str, data: Mapping[str, Any], event_id: int | None = None) -> str:
    """One event; JSON in ASCII has no line's end inside."""
    head = f"event: {name}\n" + ("" if event_id is None else f"id: {event_id}\n")
    return f"{head}data: {json.dumps(data)}\n\n"
