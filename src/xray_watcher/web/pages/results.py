"""The list of results: the images that a filter finds, as a page, as CSV and as JSON."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from xray_watcher.core.catalogue import OUTPUTS
from xray_watcher.core.naming import safe_name
from xray_watcher.ledger.results_queries import (
    check_whole,
    csv_headers,
    find_indexes,
    missing_below,
    recent_sources,
)
from xray_watcher.records import CsvLayout, from_jsonl
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.pages.views import FLAG_WORDS, ImageView, image_view
from xray_watcher.web.results_query import INBOX_ITSELF, ListQuery, list_query

A_PAGE = 50
COUNTED = 2_000
"""So many are counted at most: the count costs no second pass over the ledger."""

_LINES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _FoundPage:
    """What a page of the list shows.

    Attributes:
        images: of this page.
        left: how many follow, at most `COUNTED`; None when they were not counted.
        before: the page before ends before this index; None on the first one.
        after: the next page begins behind this index; None on the last one.
        missing_below: images below this index are not in the list yet; 0 when all are.
        sources: of the latest images.
    """

    images: Sequence[ImageView] = ()
    left: int | None = 0
    before: int | None = None
    after: int | None = None
    missing_below: int = 0
    sources: Sequence[str] = ()


class ResultsPages:
    """The routes of the list.

    Args:
        pages: renders, and knows settings and time.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def show(self, request: Request) -> Response:
        """One page of the list, with the form that asks for another list."""
        query = list_query(request.query_params)
        found = await run_sync(self._find, query)
        return await self._pages.page(
            request,
            "results.html",
            query=query,
            address=query.address,
            asked=_asked(query),
            found=found,
            counted=COUNTED,
            conditions=self._conditions(query),
            flag_words=FLAG_WORDS,
            inbox_itself=INBOX_ITSELF,
            simulations=[image.simulation for image in found.images],
        )

    async def download_csv(self, request: Request) -> Response:
        """The whole list as CSV, newest first."""
        query, layout = list_query(request.query_params), await run_sync(self._layout)

        async def content() -> AsyncIterator[bytes]:
            yield layout.header
            async for lines in self._lines(query):
                yield b"".join(layout.row(from_jsonl(line)) for line in lines)

        return _attachment(content(), "text/csv; charset=utf-8", "results.csv")

    async def download_json(self, request: Request) -> Response:
        """The whole list as the API has a page of it, newest first."""
        query, _ = list_query(request.query_params), await run_sync(self._layout)

        async def content() -> AsyncIterator[bytes]:
            separator = b'{"results":['
            async for lines in self._lines(query):
                yield separator + b",".join(line.rstrip() for line in lines)
                separator = b","
            yield (b"" if separator == b"," else separator) + b'],"next":null}'

        return _attachment(content(), "application/json", "results.json")

    def _find(self, query: ListQuery) -> _FoundPage:
        ledger = self._pages.ledger()
        if ledger is None:
            return _FoundPage()
        with ledger:
            is_back = query.before is not None
            limit = A_PAGE + 1 if is_back else A_PAGE + COUNTED
            after = query.before if is_back else query.cursor
            indexes = find_indexes(
                ledger, query.filter, limit, sort=query.sort, after=after, backwards=is_back
            )
            shown, left = indexes[:A_PAGE], len(indexes[A_PAGE:])
            if is_back:
                shown.reverse()
            is_first = not left if is_back else query.cursor is None
            is_last = not is_back and not left
            return _FoundPage(
                images=self._views(ledger.lines(shown)),
                left=None if is_back else left,
                before=None if is_first or not shown else shown[0],
                after=None if is_last or not shown else shown[-1],
                missing_below=missing_below(ledger),
                sources=recent_sources(ledger),
            )

    def _conditions(self, query: ListQuery) -> list[tuple[str, str]]:
        """The conditions to choose from: the network's, and what is asked for now."""
        asked = [label for label in (query.condition, query.label) if label]
        labels = dict.fromkeys([*self._pages.context.settings.weight_set.labels, *asked])
        return [(label, label.replace("_", " ")) for label in labels]

    def _views(self, lines: Iterable[bytes]) -> list[ImageView]:
        settings = self._pages.context.settings
        rules, zone = settings.risk_rules(), settings.zone
        return [image_view(from_jsonl(line), rules, zone) for line in lines]

    # -- downloads ------------------------------------------------------------------------

    def _layout(self) -> CsvLayout:
        """The columns of the CSV: those of every log, so that rows of all networks fit.

        Raises:
            Unavailable: images of an older ledger have still to enter the list.
        """
        headers = list[bytes]()
        if (ledger := self._pages.ledger()) is not None:
            with ledger:
                check_whole(ledger)
                headers = csv_headers(ledger)
        lines = [header.decode() for header in headers]
        named = {label for columns in csv.reader(lines) for label in columns}
        labels = [label for label in OUTPUTS if label in named]
        return CsvLayout(labels, self._pages.context.settings.zone)

    async def _lines(self, query: ListQuery) -> AsyncIterator[list[bytes]]:
        """The records of the list in pieces, each read in one go."""
        after: int | None = None
        while True:
            indexes, lines = await run_sync(self._piece, query, after)
            if not lines:
                return
            yield lines
            after = indexes[-1]

    def _piece(self, query: ListQuery, after: int | None) -> tuple[list[int], list[bytes]]:
        with self._pages.ledger() or nullcontext() as ledger:
            if ledger is None:
                return [], []
            indexes = find_indexes(ledger, query.filter, _LINES_AT_ONCE, after=after)
            return indexes, ledger.lines(indexes)


def _attachment(content: AsyncIterator[bytes], media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(content, media_type=media_type, headers=headers)


def _asked(query: ListQuery) -> list[str]:
    """What is asked for, in words: a printed page has no form."""
    first, last = query.filter.first_day, query.filter.last_day
    source = "the inbox itself" if query.filter.source == "" else safe_name(query.source or "")
    texts = {
        "received on {}": first if first == last else None,
        "received since {}": first if first != last else None,
        "received until {}": last if first != last else None,
        "level {}": query.level,
        "{} at or above its operating point": query.condition,
        "{} highest": query.label,
        "flag {}": query.flag,
        "from {}": source or None,
        "name contains {}": query.q and safe_name(query.q),
    }
    return [text.format(value) for text, value in texts.items() if value]
