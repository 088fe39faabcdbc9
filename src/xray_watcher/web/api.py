"""The routes of the API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from anyio.to_thread import run_sync
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from xray_watcher.commands.status import collect_status, collect_summary
from xray_watcher.core.image_record import ImageRecord
from xray_watcher.ledger.api_queries import WebLedger
from xray_watcher.ledger.results_queries import check_whole, find_indexes
from xray_watcher.reports.metrics import CONTENT_TYPE, collect_metrics
from xray_watcher.web.answers import UploadRequests
from xray_watcher.web.authentication import sender
from xray_watcher.web.context import WebContext
from xray_watcher.web.models import (
    Accepted,
    BatchAnswer,
    BatchState,
    Health,
    LineResult,
    RecordPage,
)
from xray_watcher.web.openapi import ApiRoute, Operation, document
from xray_watcher.web.predicting import Predicting
from xray_watcher.web.refusals import Refused
from xray_watcher.web.results_query import ResultsQuery, parsed
from xray_watcher.web.security import SecuredRoute
from xray_watcher.web.shared_limits import Figures, exposition
from xray_watcher.web.slots import UploadSlots

_UPLOAD_ERRORS = (400, 408, 413, 429, 503, 507)
_JSON = "application/json"


class PageQuery(ResultsQuery):
    """One page of records."""

    limit: int = Field(100, ge=1, le=1000, description="Most that are returned.")


def routes(
    context: WebContext,
    uploads: UploadSlots,
    batches: UploadRequests,
    figures: Callable[[], Figures],
) -> list[BaseRoute]:
    """Every route of the API."""
    reading, predicting = Reading(context, figures), Predicting(context, uploads, batches)
    documented = [
        ApiRoute("/predict_batch", predicting.predict, _PREDICT, role="upload", method="POST"),
        ApiRoute("/api/v1/batches", predicting.begin, _BEGIN, role="upload", method="POST"),
        ApiRoute("/api/v1/batches/{batch}", predicting.show, _SHOW, role="view", method="GET"),
        ApiRoute("/api/v1/results", reading.page, _PAGE, role="view", method="GET"),
        ApiRoute("/api/v1/results/{index:index}", reading.one, _ONE, role="view", method="GET"),
        ApiRoute("/api/v1/summary/{day}", reading.summary, _SUMMARY, role="view", method="GET"),
        ApiRoute("/api/v1/status", reading.status, _STATUS, role="view", method="GET"),
        ApiRoute("/healthz", reading.health, _HEALTH, role="anyone", method="GET"),
    ]

    described = bytes(JSONResponse(document(documented)).body)

    async def openapi(_request: Request) -> Response:
        return Response(described, media_type=_JSON)

    return [
        *documented,
        SecuredRoute("/metrics", reading.metrics, role="view"),
        SecuredRoute("/openapi.json", openapi, role="view"),
    ]


def _page(query: PageQuery, ledger: WebLedger) -> tuple[list[bytes], int | None]:
    """The lines of a page, and the index behind which the next one begins."""
    indexes = find_indexes(
        ledger, query.filter, query.limit + 1, sort=query.sort, after=query.cursor
    )
    has_more = len(indexes) > query.limit
    if query.sort == "score" or not has_more:
        check_whole(ledger)
    shown = indexes[: query.limit]
    return ledger.lines(shown), shown[-1] if has_more else None


class Reading:
    """The endpoints that only look."""

    def __init__(self, context: WebContext, figures: Callable[[], Figures]) -> None:
        self._context = context
        self._figures = figures

    async def page(self, request: Request) -> Response:
        """Records, newest first."""
        query = parsed(PageQuery, request.query_params)
        lines, following = await self._context.read(partial(_page, query))
        return Response(
            b'{"results":[' + b",".join(line.rstrip() for line in lines) + b'],"next":'
            + (b"null" if following is None else str(following).encode()) + b"}",
            media_type=_JSON,
        )  # fmt: skip

    async def one(self, request: Request) -> Response:
        """One record."""
        index = request.path_params["index"]
        line = await self._context.read(lambda ledger: ledger.line(index))
        if line is None:
            raise Refused("not_found", "No image is filed under this index.")
        return Response(line.rstrip(), media_type=_JSON)

    async def summary(self, request: Request) -> Response:
        """The figures of one local day."""
        context, day = self._context, request.path_params["day"]
        return JSONResponse(
            await run_sync(collect_summary, context.settings, day, context.clock.now())
        )

    async def status(self, _request: Request) -> Response:
        """How the service is, as `xray-watcher status` says it, and what is taken here."""
        context = self._context
        status = await run_sync(collect_status, context.settings, context.clock.now())
        return JSONResponse(status | {"web": self._figures()})

    async def metrics(self, _request: Request) -> Response:
        """The metrics in Prometheus' text format."""
        context = self._context
        text = await run_sync(collect_metrics, context.settings, context.clock.now())
        text += exposition(self._figures())
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    async def health(self, request: Request) -> Response:
        """Whether the service works; for whoever asks, so without any detail."""
        state = await run_sync(self._context.daemon_state)
        problems = state.problems if state.alive else _NOT_RUNNING
        health = Health(
            healthy=state.healthy,
            alive=state.alive,
            reasons=[*problems],
            problems=problems if sender(request).may("view") else None,
        )
        return JSONResponse(health.model_dump(by_alias=True), 200 if state.healthy else 503)


_NOT_RUNNING = {
    "not_running": "The daemon does not run; start it with `xray-watcher run`.",
}
_PREDICT = Operation(
    "Score images; the answer comes when all of them are filed, or line by line.",
    BatchAnswer,
    takes_files=True,
    line=LineResult,
    errors=_UPLOAD_ERRORS,
)
_BEGIN = Operation(
    "Score images; the answer comes at once, with an id to ask by.",
    Accepted,
    status=202,
    takes_files=True,
    errors=_UPLOAD_ERRORS,
)
_SHOW = Operation("How far a batch is, with the results so far.", BatchState, errors=(404, 503))
_PAGE = Operation("Records, newest first.", RecordPage, query=PageQuery, errors=(400, 503))
_ONE = Operation("One record.", ImageRecord, errors=(404, 503))
_SUMMARY = Operation("The figures of one local day.", errors=(400, 503))
_STATUS = Operation("How the service is.", errors=(503,))
_HEALTH = Operation("Whether the service works: 200 or 503.", Health, errors=(503,))
