"""Small pictures of filed images for the pages, made from pixels and not the sender's bytes.

Child processes decode the files (`imaging.preview_child`). A changed file is not shown.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Literal

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect

from xray_watcher.core.values import LEVELS, Rejection
from xray_watcher.errors import Unavailable, XrayWatcherError
from xray_watcher.imaging.child_worker import ChildWorker
from xray_watcher.imaging.preview_child import WORKER_COMMAND, Preview, PreviewChild
from xray_watcher.web.context import WebContext

Size = Literal["thumbnail", "picture"]
SIDES: dict[Size, int] = {"thumbnail": 192, "picture": 1024}
"""The longer side of each size, in pixels."""

_CACHE_BYTES = 12 << 20
_SECONDS = 10.0
_MEMORY_BYTES = 1 << 30


_Job = tuple["Future[Preview | Rejection]", str]
"""Who waits for a picture, and the path of the file."""


class NoPicture(XrayWatcherError):
    """There is nothing to show of an image; the message says why."""


class Thumbnails:
    """Makes pictures when they are asked for and keeps the latest ones in memory."""

    def __init__(self, context: WebContext, command: Sequence[str] = WORKER_COMMAND) -> None:
        self._context = context
        limits = context.settings.decode_limits().arguments()
        self._makers = {
            size: _Maker([*command, str(side), str(_MEMORY_BYTES), *limits], side)
            for size, side in SIDES.items()
        }
        for maker in self._makers.values():
            weakref.finalize(self, maker.end).atexit = False
        self._turns = {size: asyncio.Semaphore(1) for size in SIDES}
        self._kept: OrderedDict[tuple[int, Size], bytes] = OrderedDict()
        self._kept_bytes = 0

    async def png(
        self, index: int, size: Size, is_gone: Callable[[], Awaitable[bool]] | None = None
    ) -> bytes:
        """A picture of the image with this index, as a PNG.

        Args:
            is_gone: whether the client has gone away; nothing is made for it then.

        Raises:
            NoPicture: it was not scored, or its file is gone, changed or out of reach.
            ClientDisconnect: whoever asked has gone away while others had their turn.
        """
        path, sha256 = await run_sync(self._find_file, index)
        kept = self._kept.get((index, size))
        if kept is not None:
            self._kept.move_to_end((index, size))
            return kept
        async with self._turns[size]:
            if is_gone is not None and await is_gone():
                raise ClientDisconnect
            try:
                found = await asyncio.wrap_future(self._makers[size].submit(path))
            except Unavailable as error:
                raise NoPicture(error.reason) from error
        if isinstance(found, Rejection):
            raise NoPicture(found.detail)
        if found.sha256 != sha256:
            raise NoPicture("The file is not the one that was scored: somebody has changed it.")
        self._keep((index, size), found.png)
        return found.png

    def _find_file(self, index: int) -> tuple[str, bytes | None]:
        with self._context.ledger() as ledger:
            row = ledger.image_with_index(index)
        if row is None or row.level not in LEVELS or row.filed_name is None:
            raise NoPicture("No image was scored and filed under this index.")
        if row.removal is not None:
            raise NoPicture("Its file was removed by retention; the record stays.")
        classified = self._context.settings.folders.classified
        return os.path.join(classified, row.level, row.filed_name), row.sha256

    def _keep(self, key: tuple[int, Size], png: bytes) -> None:
        self._kept_bytes += len(png) - len(self._kept.pop(key, b""))
        self._kept[key] = png
        while self._kept_bytes > _CACHE_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest)


class _Maker:
    """One thread with one child: pictures of one size, one after the other.

    The thread lives as long as its `Thumbnails`, since the kernel ends a child with the thread
    that has started it.
    """

    def __init__(self, command: Sequence[str], side: int) -> None:
        self._worker = ChildWorker(partial(PreviewChild, command, side), _SECONDS)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=f"previews-{side}", daemon=True).start()

    def submit(self, path: str) -> Future[Preview | Rejection]:
        """Ask for the picture of one file."""
        future: Future[Preview | Rejection] = Future()
        self._jobs.put((future, path))
        return future

    def end(self) -> None:
        """Let thread and child end after what was asked for."""
        self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, path = job
            if not future.set_running_or_notify_cancel():
                continue  # whoever asked has gone
            try:
                future.set_result(self._worker.work_on(path))
            except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the future
                future.set_exception(error)
        self._worker.stop()
        self._worker.drop_child()
