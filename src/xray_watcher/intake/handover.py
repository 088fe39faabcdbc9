"""How our own programs hand whole files over to the daemon, by one rename each.

In the folder `uploads` of the work folder, on the inbox's own file system, lie for one file

    NAME.part    while it comes in: its receiver writes it, under a name that it has made itself
    NAME.json    the side-car: what the client calls the file, the source that records show, and
                 the id of the request; written before the image is handed over
    NAME.image   the whole image, its bytes on disk: from here on the daemon answers for it

The web is such a receiver; any other calls `Upload` likewise, with a source of its own. The daemon
claims an image as it claims a file of the inbox, row first, then one rename, and needs no settle
time for it (`handover_source.py`). It removes the side-car after that. What a receiver leaves
behind when it is killed is no image: its client has had no answer. It is removed when it has not
changed for an hour.

A rejected file that `retry` puts back is NAME = `retry-INDEX`, a name that the web never makes.
Its NAME.json says where in the inbox it came from, and where it lay: as long as it still lies there
too, `retry` is about to remove it, or was killed before it could, and the daemon leaves it alone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from xray_watcher.core.naming import client_name
from xray_watcher.system.files import (
    NEW_FILE,
    read_facts,
    remove,
    rename_noreplace,
    sync,
    sync_folder,
    write_all,
)

WEB = "web"
"""The source of what comes over HTTP, and of a side-car that names none: older ones did not."""

PART, SIDECAR, IMAGE = ".part", ".json", ".image"
"""Endings of the files."""

FILE_MODE = 0o640

_FOLDER = "uploads"


def uploads_folder(work: str) -> str:
    """Where uploads are handed over, for a work folder."""
    return os.path.join(work, _FOLDER)


def new_batch(now: datetime) -> str:
    """The id of a request's uploads: those of a later second come later."""
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}"


def is_batch(text: str) -> bool:
    """Whether a text can be the id of a request, and is not just the beginning of one."""
    return re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{12}", text, re.ASCII) is not None


def upload_name(batch: str, position: int) -> str:
    """The name of one upload: its request's id, and its position among that request's files."""
    return f"{batch}-{position:06d}"


def parse_request_id(upload: str) -> str | None:
    """The id of the request in an upload's name; None for a file that `retry` puts back."""
    request = upload.rpartition("-")[0]
    return request if is_batch(request) else None


def parse_position(upload: str) -> int:
    """The position in an upload's name."""
    return int(upload.rpartition("-")[2])


class Upload:
    """One file that comes in; every method may wait for the disk.

    Args:
        folder: of what is handed over.
        name: made by the receiver, and new.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.bytes = 0
        self._folder = folder
        self._fd = os.open(self._path(PART), NEW_FILE, FILE_MODE)

    def write(self, content: bytes | bytearray) -> None:
        """Add what has come in.

        Raises:
            OSError: it cannot be written.
        """
        write_all(self._fd, content, self.bytes)
        self.bytes += len(content)

    def hand_over(self, filename: str, source: str = WEB) -> None:
        """Give it to the daemon; from the return of this call on it is not lost any more.

        Args:
            filename: what the client calls it.
            source: what stands in `source` of its record, as the first folder of a file of the
                inbox does.

        Raises:
            OSError: it cannot be handed over.
            StorageFailure: the disk did not confirm a write.
        """
        sync(self._fd)
        self._close()
        write_sidecar(self._path(SIDECAR), filename, source, parse_request_id(self.name))
        rename_noreplace(self._path(PART), self._path(IMAGE))
        sync_folder(self._folder)

    def discard(self) -> None:
        """Remove what has come in; an upload that was handed over stays."""
        self._close()
        with suppress(OSError):
            os.unlink(self._path(PART))
            remove(self._path(SIDECAR))

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _path(self, ending: str) -> str:
        return os.path.join(self._folder, self.name + ending)


def write_sidecar(
    path: str, filename: str, source: str = WEB, request_id: str | None = None
) -> None:
    """Write down what the client calls a file, whatever that may be, and where it came from."""
    facts = {
        "filename": client_name(filename),
        "source": client_name(source),
        "request_id": request_id,
    }
    fd = os.open(path, NEW_FILE, FILE_MODE)
    try:
        write_all(fd, json.dumps(facts).encode("ascii"), 0)
        sync(fd)
    finally:
        os.close(fd)


def waiting_uploads(folder: str, batch: str) -> dict[str, str]:
    """The uploads of a batch that the daemon has not claimed: their file names, by upload."""
    return {
        name: filename_in(read_facts(os.path.join(folder, name + SIDECAR)))
        for name in images_in(folder)
        if name.startswith(f"{batch}-")
    }


def images_in(folder: str) -> set[str]:
    """Names of what was handed over whole.

    Raises:
        OSError: the folder cannot be listed.
    """
    names = os.listdir(folder)
    return {name.removesuffix(IMAGE) for name in names if name.endswith(IMAGE)}


def filename_in(facts: Mapping[str, Any]) -> str:
    """What the client calls a file; it is made safe again, for who knows who wrote it."""
    filename = facts.get("filename")
    return client_name(filename if isinstance(filename, str) else "")


def source_in(facts: Mapping[str, Any]) -> str:
    """Where a file came from, made safe likewise."""
    source = facts.get("source")
    return client_name(source) if isinstance(source, str) and source else WEB
