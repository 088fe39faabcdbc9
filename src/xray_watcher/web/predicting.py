"""`POST /predict_batch` and the batches of `/api/v1`: images in, results out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import structlog
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from xray_watcher.errors import LedgerError, StorageFailure, Unavailable
from xray_watcher.intake.handover import new_batch, uploads_folder
from xray_watcher.web import answers
from xray_watcher.web.answers import DaemonGone, Filed, UploadRequests
from xray_watcher.web.authentication import Requester, sender
from xray_watcher.web.context import WebContext
from xray_watcher.web.limits import Rate, TooLarge, TooSlow, body_chunks
from xray_watcher.web.models import (
    Accepted,
    LastLine,
    LineResult,
    Result,
)
from xray_watcher.web.multipart import MalformedBody, events, parse_boundary
from xray_watcher.web.receiving import NoRoom, TooManyFiles, UploadRequest, UploadTarget, receive
from xray_watcher.web.refusals import Refused
from xray_watcher.web.slots import Busy, Slot, UploadSlots

LINES = "application/x-ndjson"

_WRITERS = 8  # threads that write uploads; the others stay free
_KEEPS_FROM_CLAIMING = (
    *("starting", "hangs", "inbox", "uploads"),
    *("folders", "logs", "storage", "ledger", "model"),
)
_PROBLEMS: dict[type[Exception], tuple[str, str]] = {
    MalformedBody: ("malformed", ""),
    TooSlow: ("too_slow", ""),
    TooLarge: ("too_large", "The upload is larger than web.max_request_bytes."),
    TooManyFiles: ("too_many_files", ""),
    Busy: ("busy", "Too many uploads go on at the moment; come again in a minute."),
    Unavailable: ("unavailable", ""),
    StorageFailure: ("storage", ""),
    NoRoom: ("no_room", ""),
}
"""Code and sentence of what may go wrong with an upload; else its own message."""

_REFUSED: tuple[type[Exception], ...] = (Refused, *_PROBLEMS)

_log = structlog.get_logger()


class Predicting:
    """The endpoints that receive images and answer with their results."""

    def __init__(self, context: WebContext, slots: UploadSlots, batches: UploadRequests) -> None:
        self._context = context
        self._web = context.settings.web
        self._batches = batches
        self._upload_slots = slots
        self._rate = Rate(self._web.uploads_per_minute, context.clock)
        self._writers = CapacityLimiter(_WRITERS)

    # -- endpoints ------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        """Take images and answer when all of them are filed, or line by line."""
        batch = await self._take(request)
        status = 200 if batch.accepted else 413
        if LINES in request.headers.get("accept", ""):
            return StreamingResponse(self._lines(batch, request), status, media_type=LINES)
        images: list[Filed] = []
        try:
            async for new in answers.filed_images(self._context, batch, request.is_disconnected):
                images += new
        except (DaemonGone, LedgerError) as error:
            raise Refused("stopped", str(error), batch.id, batch.accepted) from error
        return self._whole(batch, images, status)

    async def begin(self, request: Request) -> Response:
        """Take images and answer at once, with the id by which to ask for them."""
        batch = await self._take(request)
        url = f"/api/v1/batches/{batch.id}"
        accepted = Accepted(
            request_id=batch.id,
            batch=batch.id,
            files=batch.files,
            accepted=batch.accepted,
            refused=[answers.refused(refusal) for refusal in batch.refusals.values()],
            url=url,
        )
        return Response(
            accepted.model_dump_json(),
            202 if batch.accepted else 413,
            {"Location": url},
            media_type="application/json",
        )

    async def show(self, request: Request) -> Response:
        """How far a batch is, and the results that are known."""
        batch_id = request.path_params["batch"]
        batch = await run_sync(self._batches.find, self._context, batch_id)
        if batch is None:
            raise Refused("not_found", "There is no batch with this id.")
        images = await run_sync(answers.filed_now, self._context, batch_id)
        refused = len(batch.refusals)
        state = "working" if len(images) < batch.accepted else "done"
        progress = {
            "state": state if batch.is_over else "receiving",
            "files": batch.accepted + refused, "done": len(images) + refused,
        }  # fmt: skip
        return self._whole(batch, images, 200, progress)

    # -- receiving ------------------------------------------------------------------------

    async def _take(self, request: Request) -> UploadRequest:
        """Take every image of a request.

        Raises:
            Refused: the request cannot be taken, or not to its end.
        """
        batch, client = UploadRequest(new_batch(self._context.clock.now())), sender(request)
        try:
            boundary = parse_boundary(request.headers.get("content-type", ""))
            target = await self._check_first(request, client)
            async with self._upload_slots.hold(client.keys) as slot:
                self._batches.add(batch)
                await self._receive(request, boundary, target, batch, slot)
        except ClientDisconnect:
            raise Refused("cut_off", "The client went away.", batch.id, batch.accepted) from None
        except _REFUSED as error:
            refusal = error if isinstance(error, Refused) else _refused(error, batch)
            _log.warning(
                "upload refused",
                code="upload_refused",
                client=client.name,
                refusal=refusal.code,
                request_id=batch.id,
            )
            raise refusal from None
        if not batch.files:
            raise Refused("no_files", "The request holds no files in the field `files`.")
        return batch

    async def _check_first(self, request: Request, client: Requester) -> UploadTarget:
        """Check everything that can be known before the body is read."""
        if not self._rate.allows(client.name):
            raise Busy
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._web.max_request_bytes:
            raise TooLarge
        return await run_sync(self._target)

    def _target(self) -> UploadTarget:
        """Where uploads go; in a thread.

        Raises:
            Refused: nothing would claim them.
            NoRoom: the disk is nearly full.
        """
        settings, state = self._context.settings, self._context.daemon_state()
        if not state.alive:
            raise Refused(
                "not_running",
                "The service that scores images is not running (`xray-watcher run`). Nothing was "
                "taken; send the images again when it runs.",
            )
        for component in _KEEPS_FROM_CLAIMING:
            if component in state.problems:
                raise Refused("degraded", f"Nothing was taken. {state.problems[component]}")
        if "disk" in state.problems:
            raise NoRoom(f"Nothing was taken. {state.problems['disk']}")
        with self._context.ledger() as ledger:
            work = ledger.meta("work")
        if work is None:
            raise Refused("degraded", "Nothing was taken. The service is starting.")
        target = UploadTarget(
            uploads_folder(work),
            settings.folders.waker,
            settings.intake.max_bytes,
            self._web.max_files,
            settings.intake.min_free_bytes,
        )
        target.check_room()
        return target

    async def _receive(
        self,
        request: Request,
        boundary: bytes,
        target: UploadTarget,
        batch: UploadRequest,
        slot: Slot,
    ) -> None:
        chunks = body_chunks(
            request.receive, self._context.clock, self._web.max_request_bytes, slot.pace
        )
        give_way = partial(self._upload_slots.give_way, slot)
        try:
            await receive(events(chunks, boundary), target, batch, self._writers, give_way)
        finally:
            _log.info(
                "upload",
                code="upload_received",
                request_id=batch.id,
                client=sender(request).name,
                files=batch.files,
                accepted=batch.accepted,
            )

    # -- answering ------------------------------------------------------------------------

    def _whole(
        self,
        batch: UploadRequest,
        images: list[Filed],
        status: int,
        more: dict[str, object] | None = None,
    ) -> Response:
        """All results in one object, in the order of the request."""
        end = {**self._end(batch, images).model_dump(), **(more or {})}
        return StreamingResponse(
            self._object(batch, images, end), status, media_type="application/json"
        )

    async def _object(
        self, batch: UploadRequest, images: list[Filed], end: dict[str, object]
    ) -> AsyncIterator[bytes]:
        yield b'{"results":['
        comma = b""
        async for result in answers.results_in_order(self._context, batch, images):
            yield comma + result.to_json()
            comma = b","
        yield b"]," + bytes(JSONResponse(end).body)[1:]

    async def _lines(self, batch: UploadRequest, request: Request) -> AsyncIterator[bytes]:
        """Each result as soon as it is known, and the summary at the end."""
        for position, refusal in batch.refusals.items():
            yield _line(answers.refused(refusal), position)
        images: list[Filed] = []
        try:
            async for new in answers.filed_images(self._context, batch, request.is_disconnected):
                results = await answers.load_results(self._context, [image.index for image in new])
                for image, result in zip(new, results, strict=True):
                    yield _line(result, image.position)
                images += new
        except (DaemonGone, LedgerError) as error:
            stopped = Refused("stopped", str(error), batch.id, batch.accepted)
            yield bytes(stopped.json().body) + b"\n"
            return
        yield self._end(batch, images).model_dump_json().encode() + b"\n"

    def _end(self, batch: UploadRequest, images: list[Filed]) -> LastLine:
        return LastLine(
            summary=answers.counts(batch, images),
            output_directory=answers.output_directory(self._context),
            request_id=batch.id,
            batch=batch.id,
        )


def _line(result: Result, position: int) -> bytes:
    line = LineResult(position=position, **dict(result))
    return line.to_json() + b"\n"


def _refused(error: Exception, batch: UploadRequest) -> Refused:
    """The refusal for an error; images that were handed over before stay handed over."""
    code, sentence = _PROBLEMS[type(error)]
    message = sentence or str(error)
    if batch.accepted:
        message += (
            f" {batch.accepted} files of it were taken before and are filed; ask for them at "
            f"/api/v1/batches/{batch.id}."
        )
    return Refused(code, message, batch.id if batch.accepted else None, batch.accepted)
