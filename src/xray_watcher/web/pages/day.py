"""The page of one day, and its results as files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Literal

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from xray_watcher.ledger.page_queries import PageLedger
from xray_watcher.ledger.rows import LogLine, LogState
from xray_watcher.reports.daily import Summary, banners, day_summary
from xray_watcher.web.pages.figures import Today, load_today
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.refusals import Refused

Form = Literal["csv", "jsonl"]
_TYPES: dict[Form, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
_LOG_NAME = re.compile(r"results-\d{4}-\d\d-\d\d(\.\d+)?", re.ASCII)
_LINES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class _DayPage:
    """All that the page of a day shows."""

    summary: Summary
    figures: Today
    logs: list[str]
    before: str | None
    after: str | None


class DayPages:
    """The routes of days."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def choose(self, request: Request) -> Response:
        """Go to the day that was chosen, or to today."""
        wanted = _day(request.query_params.get("date", "")) or self._pages.today()
        return RedirectResponse(f"/days/{wanted}", status_code=303)

    async def show(self, request: Request) -> Response:
        """The figures of a day."""
        wanted = _day(request.path_params["day"])
        if wanted is None:
            raise Refused("not_found", "That is no date; write it as 2026-11-23.")
        found = await run_sync(self._find, wanted)
        if found is None:
            raise Refused("not_found", "There are no figures yet: the service has not run here.")
        return await self._pages.page(
            request,
            "day.html",
            day=wanted,
            shown=found,
            summary=found.summary,
            long_date=f"{date.fromisoformat(wanted):%A %-d %B %Y}",
            simulations=banners(found.summary["models"]),
        )

    def _find(self, day: str) -> _DayPage | None:
        ledger = self._pages.ledger()
        if ledger is None:
            return None
        settings = self._pages.context.settings
        with ledger:
            before, after = ledger.neighbours(day)
            return _DayPage(
                summary=day_summary(ledger, day, today=self._pages.today()),
                figures=load_today(ledger, day, settings.risk_rules(), settings.zone),
                logs=ledger.logs_of(day),
                before=before,
                after=after,
            )

    async def download(self, request: Request, form: Form) -> Response:
        """The results of one log, byte for byte as in the log."""
        name = request.path_params["log"]
        log = await run_sync(self._log, name) if _LOG_NAME.fullmatch(name) else None
        if log is None:
            raise Refused("not_found", "There is no log of that name.")
        return StreamingResponse(
            self._content(log, form),
            media_type=_TYPES[form],
            headers={"Content-Disposition": f'attachment; filename="{name}.{form}"'},
        )

    def _log(self, name: str) -> LogState | None:
        ledger = self._pages.ledger()
        if ledger is None:
            return None
        with ledger:
            return ledger.log_state(name)

    async def _content(self, log: LogState, form: Form) -> AsyncIterator[bytes]:
        """From the ledger, which is never on a share; in pieces, each read in one go."""
        if form == "csv":
            yield log.csv_header
        after = -1
        while lines := await run_sync(partial(self._lines, log.name, after)):
            after = lines[-1].idx
            yield b"".join(getattr(line, form) for line in lines)

    def _lines(self, name: str, after: int) -> Sequence[LogLine]:
        with PageLedger.open(self._pages.context.settings.folders.ledger) as ledger:
            return ledger.log_part(name, after, _LINES_AT_ONCE)


def _day(text: str) -> str | None:
    """A date as it is written in addresses, or None; `fromisoformat` takes weeks too."""
    try:
        found = date.fromisoformat(text).isoformat()
    except ValueError:
        return None
    return found if found == text else None
