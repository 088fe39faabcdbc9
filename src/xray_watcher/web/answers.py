"""What became of the images of one request, read from the ledger as they are filed."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect

from xray_watcher.core.values import LEVELS
from xray_watcher.errors import XrayWatcherError
from xray_watcher.intake.handover import (
    is_batch,
    parse_position,
    uploads_folder,
    waiting_uploads,
)
from xray_watcher.records import REJECTED, from_jsonl
from xray_watcher.web.context import WebContext
from xray_watcher.web.models import Counts, Error, Result
from xray_watcher.web.receiving import Refusal, UploadRequest

GONE_S = 20.0
"""A daemon that is away for this long is not waited for any longer: what it was sent is safe."""

_CHANGE_POLL_S = 0.04
_POLL_S = 1.0  # a change may be missed; the ledger is asked this often all the same
_POLL_SHARE = 4  # of the time that asking took, at least this much passes until the next
_CHUNK = 100  # records in memory at a time
_REMEMBERED = 1000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Filed:
    """One upload that is filed: its position in its request, its index, its level."""

    position: int
    index: int
    level: str


class DaemonGone(XrayWatcherError):
    """The daemon ended while its results were waited for."""


class UploadRequests:
    """The requests of this life of the process: what the ledger cannot know of them."""

    def __init__(self) -> None:
        self._batches: OrderedDict[str, UploadRequest] = OrderedDict()

    def add(self, batch: UploadRequest) -> None:
        """Remember a request; the oldest is forgotten, and known from the ledger alone."""
        self._batches[batch.id] = batch
        if len(self._batches) > _REMEMBERED:
            self._batches.popitem(last=False)

    def find(self, context: WebContext, batch_id: str) -> UploadRequest | None:
        """The request with this id; in a thread.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        if batch_id in self._batches:
            return self._batches[batch_id]
        return _known_batch(context, batch_id) if is_batch(batch_id) else None


def _known_batch(context: WebContext, batch_id: str) -> UploadRequest | None:
    """A request of an earlier life: those of its images that wait or were claimed."""
    with context.ledger() as ledger:
        work = ledger.meta("work")
        waiting = waiting_uploads(uploads_folder(work), batch_id) if work else {}
        names = {*waiting, *ledger.claimed_uploads(batch_id)}
    if not names:
        return None
    files = 1 + max(parse_position(name) for name in names)
    return UploadRequest(batch_id, files=files, accepted=len(names), is_over=True)


# -- waiting ------------------------------------------------------------------------------


async def filed_images(
    context: WebContext, batch: UploadRequest, is_gone: Callable[[], Awaitable[bool]]
) -> AsyncIterator[list[Filed]]:
    """The images of a request as they are filed, some at a time, until all are.

    Args:
        is_gone: whether the client has gone away.

    Raises:
        ClientDisconnect: nobody waits any more.
        DaemonGone: the daemon has been away for a while.
        LedgerError: the ledger cannot be read.
    """
    known: set[int] = set()
    seen_s = context.clock.monotonic_s()  # when the daemon was last there
    while True:
        began_s = context.clock.monotonic_s()
        version = _version(context)
        found = await run_sync(filed_now, context, batch.id)
        new = [image for image in found if image.position not in known]
        known.update(image.position for image in new)
        for piece in _chunks(new):
            yield piece
        if len(known) >= batch.accepted:
            return
        now_s = context.clock.monotonic_s()
        if (await run_sync(context.daemon_state)).alive:
            seen_s = now_s
        elif now_s - seen_s > GONE_S:
            raise DaemonGone(
                "The service has stopped before every image was filed. What was sent is safe and "
                "is filed when it runs again; ask for the results then."
            )
        if await is_gone():
            raise ClientDisconnect
        await asyncio.sleep((now_s - began_s) * _POLL_SHARE)
        await _change(context, version)


def filed_now(context: WebContext, batch_id: str) -> list[Filed]:
    """The images of a request that are filed by now; in a thread."""
    with context.ledger() as ledger:
        filed = ledger.filed_uploads(batch_id)
    return [Filed(parse_position(upload), index, level) for upload, index, level in filed]


async def _change(context: WebContext, version: tuple[int, ...]) -> None:
    """Wait until something was committed to the ledger, or for a moment."""
    until_s = context.clock.monotonic_s() + _POLL_S
    while context.clock.monotonic_s() < until_s and _version(context) == version:  # noqa: ASYNC110
        # Another process sends no event.
        await asyncio.sleep(_CHANGE_POLL_S)


def _version(context: WebContext) -> tuple[int, ...]:
    """Size and time of the ledger's write-ahead log: another one after every commit."""
    try:
        status = os.stat(context.settings.folders.ledger + "-wal")
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns


# -- results ------------------------------------------------------------------------------


async def results_in_order(
    context: WebContext, batch: UploadRequest, images: Iterable[Filed]
) -> AsyncIterator[Result]:
    """The results of a request in its own order; only some are in memory at a time."""
    index_at = {image.position: image.index for image in images}
    for positions in _chunks(
        [p for p in range(batch.files) if p in index_at or p in batch.refusals]
    ):
        indexes = [index_at[position] for position in positions if position in index_at]
        filed = iter(await load_results(context, indexes))
        for position in positions:
            yield next(filed) if position in index_at else refused(batch.refusals[position])


async def load_results(context: WebContext, indexes: list[int]) -> list[Result]:
    """The results of some filed images."""
    lines = await context.read(lambda ledger: list(ledger.lines(indexes)))
    return [Result.of_record(from_jsonl(line)) for line in lines]


def refused(refusal: Refusal) -> Result:
    """The result of a file that was not taken."""
    error = Error(code=refusal.code, message=refusal.message)
    return Result.of_refusal(refusal.filename, error)


def counts(batch: UploadRequest, images: Iterable[Filed]) -> Counts:
    """How many of a request's images are of each level by now."""
    levels = Counter(image.level for image in images)
    levels[REJECTED] += len(batch.refusals)
    return Counts(**{level: levels[level] for level in (*LEVELS, REJECTED)})


def output_directory(context: WebContext) -> str:
    """Where classified images lie, as `saved_path` has it: relative below the root."""
    folders = context.settings.folders
    relative = os.path.relpath(folders.classified, folders.root)
    return folders.classified if relative.startswith("..") else relative


def _chunks(items: list[_T]) -> Iterator[list[_T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
