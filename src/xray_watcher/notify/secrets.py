"""Files with secrets: who may read them, and what editors leave in them."""

from __future__ import annotations

import base64
import codecs
import os
import stat

from xray_watcher.errors import XrayWatcherError

_SHORTEST_KEY = 16
_BASE64_FORM = b"whsec_"


class SecretFileError(XrayWatcherError):
    """A file with a secret cannot be used: it is missing, too short, or open to everybody."""


def read_secret(path: str) -> bytes:
    """The secret in a file, without the white space and the byte-order mark of an editor.

    Raises:
        SecretFileError: it cannot be used; the message names the file and not what is in it.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(4096).removeprefix(codecs.BOM_UTF8).strip()
    except OSError as error:
        raise SecretFileError(f"{path} cannot be read ({os.strerror(error.errno or 0)}).") from None
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise SecretFileError(
            f"{path} is open to others (mode {stat.S_IMODE(mode):o}): chmod 640, or 600."
        )
    if not secret:
        raise SecretFileError(f"{path} is empty.")
    return secret


def read_secret_text(path: str) -> str:
    """The secret in a file as text.

    Raises:
        SecretFileError: it cannot be used, or is not text.
    """
    secret = read_secret(path)
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        raise SecretFileError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    if "\0" in text:  # also what UTF-16 makes of plain letters
        raise SecretFileError(f"{path} has a NUL character in it: save it as UTF-8.")
    return text


def read_key(path: str) -> bytes:
    """The key by which messages are signed: the bytes as they are, or `whsec_` and base64.

    Raises:
        SecretFileError: it cannot be used.
    """
    key = read_secret(path)
    if key.startswith(_BASE64_FORM):
        try:
            key = base64.b64decode(key.removeprefix(_BASE64_FORM), validate=True)
        except ValueError:
            raise SecretFileError(
                f"{path} begins with whsec_ and goes on with what is not base64: A-Z a-z 0-9 + / "
                "and the = at its end."
            ) from None
    if len(key) < _SHORTEST_KEY:
        raise SecretFileError(f"{path} is too short: {_SHORTEST_KEY} bytes at least.")
    return key
