"""Two doors, one way: a file of the inbox and an upload are claimed alike, each from its place."""

from __future__ import annotations

from collections.abc import Iterable

from xray_watcher.core.values import Arrival
from xray_watcher.intake.spool import Spool


def claim(spool: Spool, arrival: Arrival, image_id: int) -> bool:
    """Rename a file that has arrived into the work folder.

    Returns:
        False when it is not there any more.

    Raises:
        Barred: this file may not be moved.
        Unavailable: the rename failed and the file still lies where it was.
    """
    if arrival.upload is None:
        return spool.claim(arrival.file.path, image_id)
    return spool.uploads.claim(arrival.upload, spool.work_path(image_id))


def still_waits(spool: Spool, inbox_path: str, upload: str | None) -> bool:
    """Whether a file that was not claimed lies where it arrived."""
    if upload is not None:
        return spool.uploads.waits(upload)
    return spool.is_in_inbox(inbox_path)


def sync_claims(spool: Spool, claims: Iterable[tuple[str, str | None]]) -> None:
    """Make claims last through a power cut.

    Args:
        spool: where they were made.
        claims: path below the inbox, and name of the upload if it is one.
    """
    paths, uploads = [], []
    for path, upload in claims:
        if upload is None:
            paths.append(path)
        else:
            uploads.append(upload)
    spool.sync_claims(paths)
    if uploads:
        spool.uploads.sync_claims(uploads)
