"""Receives the images of one request: each is streamed to a file and handed over to the daemon.

An image is handed over as soon as it is whole, while the next ones still come in. So it is scored
earlier, and a client that goes away loses nothing that it has sent.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from xray_watcher.core.naming import client_name
from xray_watcher.errors import Unavailable, XrayWatcherError
from xray_watcher.intake.handover import Upload, upload_name
from xray_watcher.system.disks import free_bytes
from xray_watcher.system.signals import wake_from_outside
from xray_watcher.web.multipart import Event, FileBegin, FileEnd

_T = TypeVar("_T")

_BLOCK_BYTES = 1 << 20  # held in memory before it is written
_FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoom(XrayWatcherError):
    """There is too little free space to take an upload."""


class TooManyFiles(XrayWatcherError):
    """A request holds more files than are taken."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that was not taken, and why: a code as those of rejections, and a sentence."""

    filename: str
    code: str
    message: str


@dataclass(slots=True)
class UploadRequest:
    """The files of one request; it grows while they come in.

    Attributes:
        id: made here; the names of its uploads begin with it.
        files: number of files that have begun to come in; the last has the position `files - 1`.
        accepted: number of them that were handed over.
        refusals: those that were not taken, by position.
        is_over: whether nothing more comes.
    """

    id: str
    files: int = 0
    accepted: int = 0
    refusals: dict[int, Refusal] = field(default_factory=dict)
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Where uploads go, and what may go there.

    Attributes:
        max_file_bytes: larger files are refused, the others of their request are not.
        min_free_bytes: that must be left on the disk.
    """

    folder: str
    waker: str
    max_file_bytes: int
    max_files: int
    min_free_bytes: int

    def check_room(self, more_bytes: int = 0) -> None:
        """Refuse before a disk is full: what is claimed must still find room.

        Raises:
            NoRoom: so much more would leave too little.
            Unavailable: the disk does not say.
        """
        free = free_bytes(self.folder)
        if free - more_bytes < self.min_free_bytes:
            raise NoRoom(
                f"The server's disk is nearly full ({free / 1e6:.0f} MB are free); no image is "
                "taken until there is room again."
            )


async def receive(
    found: AsyncIterator[Event],
    target: UploadTarget,
    batch: UploadRequest,
    limiter: CapacityLimiter,
    give_way: Callable[[], Awaitable[None]],
) -> None:
    """Take in every file of a request.

    What it raises is about the request; the files that were handed over before, of which there
    are `batch.accepted`, are filed all the same.

    Args:
        limiter: of the threads that write.
        give_way: is awaited between two files.

    Raises:
        NoRoom: the disk is nearly full.
        TooManyFiles: there are more than are taken.
        Unavailable: the folder of the uploads cannot be written.
    """
    intake = _Intake(target, batch, limiter)
    try:
        async for event in found:
            if isinstance(event, FileBegin):
                intake.begin(event.filename)
            elif isinstance(event, FileEnd):
                await intake.end()
                await give_way()
            else:
                await intake.add(event)
    finally:
        await intake.close()
        batch.is_over = True


class _Intake:
    """The file that comes in at the moment."""

    def __init__(
        self, target: UploadTarget, batch: UploadRequest, limiter: CapacityLimiter
    ) -> None:
        self._target = target
        self._batch = batch
        self._limiter = limiter
        self._filename = ""
        self._buffer = bytearray()
        self._bytes = 0
        self._upload: Upload | None = None
        self._is_open = False

    def begin(self, filename: str) -> None:
        if self._batch.files >= self._target.max_files:
            raise TooManyFiles(
                f"More than {self._target.max_files} files in one request (web.max_files): send "
                "them in several."
            )
        self._batch.files += 1
        self._filename = client_name(filename)
        self._buffer.clear()
        self._bytes = 0
        self._is_open = True

    async def add(self, content: bytes) -> None:
        self._bytes += len(content)
        if not self._is_open:
            return
        if self._bytes > self._target.max_file_bytes:
            megabytes = self._target.max_file_bytes / 1e6
            await self._refuse(
                "too_large", f"The file is larger than {megabytes:.0f} MB (intake.max_bytes)."
            )
            return
        self._buffer += content
        if len(self._buffer) >= _BLOCK_BYTES:
            await self._in_thread(self._write)

    async def end(self) -> None:
        if self._is_open:
            await self._in_thread(self._finish)
            self._is_open = False

    async def close(self) -> None:
        """Remove what is not whole."""
        if self._is_open:
            await self._refuse("incomplete", "The upload ended within this file.")

    async def _refuse(self, code: str, message: str) -> None:
        self._is_open = False
        self._batch.refusals[self._batch.files - 1] = Refusal(self._filename, code, message)
        if self._upload is not None:
            await run_sync(self._upload.discard, limiter=self._limiter)
            self._upload = None

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            return await run_sync(work, limiter=self._limiter)
        except OSError as error:
            if error.errno in _FULL:
                raise NoRoom(
                    "The server's disk is full; no image is taken until there is room again."
                ) from error
            reason = f"An upload cannot be written ({type(error).__name__})."
            raise Unavailable("uploads", reason) from error

    def _write(self) -> None:
        self._target.check_room(len(self._buffer))
        if self._upload is None:
            name = upload_name(self._batch.id, self._batch.files - 1)
            self._upload = Upload(self._target.folder, name)
        self._upload.write(self._buffer)
        self._buffer.clear()

    def _finish(self) -> None:
        self._write()
        assert self._upload is not None
        self._upload.hand_over(self._filename)
        self._upload = None
        self._batch.accepted += 1
        wake_from_outside(self._target.waker)
