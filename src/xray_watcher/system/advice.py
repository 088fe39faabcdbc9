"""What to do about a folder or disk that refuses, in words that harm nothing."""

from __future__ import annotations

import errno
import os

_ROOM = (
    "Its disk is full, or the quota of user {user} is used up: make room there or raise the quota. "
    "Nothing is lost and nothing has to be restored."
)
_PERMISSION = "Give user {user} write permission there."
_FOLDER = "A file lies where a folder has to be: move it away, or name another folder."
_DISK = "Look whether its disk or share works (`dmesg`)."

_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "Its file system is read-only: mount it for writing. Linux does that itself to a "
    "disk that fails; `dmesg` says so then.",
    errno.ENOTDIR: _FOLDER,
    errno.EEXIST: _FOLDER,
}


def refusal(what: str, error: OSError) -> str:
    """What happened and what to do, in sentences.

    Args:
        what: the beginning of the first sentence, as `The folder /srv/xray cannot be used`.
        error: why.
    """
    advice = _ADVICE.get(error.errno or 0, _DISK).format(user=os.geteuid())
    return f"{what} ({os.strerror(error.errno or 0)}). {advice}"
