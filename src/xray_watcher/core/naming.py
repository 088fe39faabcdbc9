"""Names of filed images: `0000_name.jpg`, safe on every file system and in every listing."""

from __future__ import annotations

import os.path
import re
import unicodedata

WORK_FOLDER = ".xray-watcher"
"""Name of the work folder; hidden, so that no scan of the inbox enters it."""

MAX_NAME_BYTES = 255
"""Longest name that Linux file systems take."""

PLAIN_NAME_BYTES = 100
"""What every file system of today takes, and `.json` after it: eCryptfs takes 143."""

MAX_SUFFIX_BYTES = 16
"""What follows the last dot is kept as a suffix up to this length; more is no suffix."""

LARGEST_INDEX = 10**12 - 1
"""What is larger is no index of ours but somebody's number, and may be more than a ledger holds."""

_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control, format (bidirectional overrides), surrogate, private, unassigned, separators."""

_MOST_DIGITS = len(str(LARGEST_INDEX))
_SEPARATORS = frozenset("/\\")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


def safe_name(name: str) -> str:
    """Escape what is not safe in a name, byte by byte, as `%0A`; `os.fsdecode` has made the name.

    Returns:
        Valid UTF-8 without control characters, separators or invisible formatting.
    """
    return "".join(_escape(char) if _is_unsafe(char) else char for char in name)


def indexed_name(index: int, name: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """The name under which the image with this index is filed.

    Args:
        index: at least four digits are written; it simply widens at 10000.
        name: the name as it came; it is made safe here.
        max_bytes: the whole is cut to this length at a character's edge, the suffix stays.
    """
    stem, suffix = _split(safe_name(name))
    prefix = f"{index:04d}_"
    room = max_bytes - len(prefix) - len(suffix.encode())
    return prefix + _cut(stem, room) + suffix


def plain_name(index: int, name: str) -> str:
    """The name for a file system that refuses the other: short, of ASCII letters and digits.

    `_` stands for what is no letter, digit, dot or dash.
    """
    return indexed_name(index, _NOT_PLAIN.sub("_", safe_name(name)), PLAIN_NAME_BYTES)


def is_plain(filed_name: str) -> bool:
    """Whether no plainer name would help where this one is refused."""
    return len(filed_name) <= PLAIN_NAME_BYTES and not _NOT_PLAIN.search(filed_name)


def client_name(text: str) -> str:
    """The name of an uploaded file as records show it, where clients may send a path or nothing.

    Returns:
        The last part, made safe and cut to 255 bytes, the suffix kept; "unnamed" for none.
    """
    name = safe_name(text.replace("\\", "/").rpartition("/")[2])
    if name in ("", ".", ".."):
        return "unnamed"
    stem, suffix = _split(name)
    return _cut(stem, MAX_NAME_BYTES - len(suffix.encode())) + suffix


def parse_index(filed_name: str) -> int | None:
    """The index that a filed name begins with, or None when it is not such a name."""
    digits, underscore, _ = filed_name.partition("_")
    if underscore and 4 <= len(digits) <= _MOST_DIGITS and digits.isascii() and digits.isdecimal():
        return int(digits)
    return None


def one_line(text: str) -> str:
    """Escape what a terminal or log would not print in a text that others may have written."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _is_unsafe(char: str) -> bool:
    return char in _SEPARATORS or unicodedata.category(char) in _ESCAPED_CATEGORIES


def _escape(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def _split(name: str) -> tuple[str, str]:
    stem, suffix = os.path.splitext(name)
    if len(suffix.encode()) > MAX_SUFFIX_BYTES:
        return name, ""
    return stem, suffix


def _cut(text: str, max_bytes: int) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore")
