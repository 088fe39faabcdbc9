"""Templates to answers: what every page has in common is put in here."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from importlib.resources import files
from typing import Any

import jinja2
from anyio.to_thread import run_sync
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from xray_watcher import __version__
from xray_watcher.commands.status import DaemonState
from xray_watcher.core.times import local_day
from xray_watcher.core.values import LEVELS
from xray_watcher.ledger.page_queries import PageLedger
from xray_watcher.records import NOTICE, REJECTED, SIMULATIONS
from xray_watcher.web import charts
from xray_watcher.web.authentication import sender
from xray_watcher.web.context import WebContext
from xray_watcher.web.pages.views import FLAG_LABELS
from xray_watcher.web.refusals import Refused

ASSETS: Mapping[str, bytes] = {
    file.name: file.read_bytes() for file in files("xray_watcher.web").joinpath("static").iterdir()
}
"""The style sheet, scripts and icon, by name."""

ASSETS_MARK = hashlib.sha256(b"".join(ASSETS[name] for name in sorted(ASSETS))).hexdigest()[:12]
"""Changes with any of them, so that browsers may keep what they have."""


class Pages:
    """Renders templates for requests."""

    def __init__(self, context: WebContext) -> None:
        self.context = context
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("xray_watcher.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "notice": NOTICE,
            "levels": LEVELS,
            "rejected": REJECTED,
            "assets": ASSETS_MARK,
            "version": __version__,
            "charts": charts,
            "flag_labels": FLAG_LABELS,
        }
        self._templates.filters |= {
            "percent": percent,
            "bytes": bytes_text,
            "clock": "{:%H:%M:%S}".format,
            "moment": "{:%Y-%m-%d %H:%M:%S}".format,
            "thousands": "{:,}".format,
        }

    async def page(
        self, request: Request, template: str, *, status: int = 200, **values: Any
    ) -> Response:
        """A whole page.

        Args:
            values: what the template shows; `simulations` of images on it add to the banner.
        """
        state = await run_sync(self.context.daemon_state)
        who = sender(request)
        common = {
            "path": request.url.path,
            "state": state,
            "banners": self.banners(state, values.pop("simulations", ())),
            "may_upload": who.may("upload"),
            "may_sign_out": bool(self.context.settings.web.token_file) and who.may("view"),
            "today": self.today(),
        }
        text = await run_sync(partial(self.fragment, template, **common, **values))
        return HTMLResponse(text, status_code=status)

    async def refused(self, request: Request, refusal: Refused) -> Response:
        """A page that says why there is nothing to see."""
        page = await self.page(
            request,
            "refused.html",
            status=refusal.status,
            title=refusal.title,
            sentence=refusal.message,
        )
        page.headers.update(refusal.headers or {})
        return page

    def fragment(self, template: str, **values: Any) -> Markup:
        """A piece of a page, or all of it; in a thread if it is large."""
        return Markup(self._templates.get_template(template).render(**values))  # noqa: S704 - autoescaped

    def now(self) -> datetime:
        """The local time."""
        return self.context.clock.now().astimezone(self.context.settings.zone)

    def today(self) -> str:
        """The local day."""
        return local_day(self.context.clock.now(), self.context.settings.zone)

    def ledger(self) -> PageLedger | None:
        """The ledger, or None before the daemon has ever run: `with` it, in a thread.

        Raises:
            LedgerError: it cannot be read.
        """
        path = self.context.settings.folders.ledger
        return PageLedger.open(path) if os.path.exists(path) else None

    def banners(self, state: DaemonState, simulations: Iterable[str] = ()) -> list[str]:
        """What must be said loudly because a network simulates.

        Args:
            state: of the daemon; its network counts, and the configured one.
            simulations: what must be said of the images that are shown; empty ones count not.
        """
        model = state.report.model
        names = {self.context.settings.model.weights, "" if model is None else model.name}
        said = {SIMULATIONS[name] for name in names & SIMULATIONS.keys()}
        return sorted(said.union(simulations) - {""})


def percent(share: float) -> str:
    """A share in percent: a small one is not nothing, and only all is all."""
    rounded = math.floor(100 * share + 0.5)
    if rounded == 0 and share > 0:
        return "<1 %"
    if rounded == 100 and share < 1:
        return ">99 %"
    return f"{rounded} %"


def bytes_text(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
