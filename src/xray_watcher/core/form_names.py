"""What clients do to a file's name in `filename="..."` of a form, undone.

HTML forms know no encoding of names but three characters that browsers escape. Mail has encoded
words (RFC 2047), and clients made of a mail library send them (.NET's, RestSharp, Java's).
"""

from __future__ import annotations

import binascii
import re
from itertools import groupby
from operator import itemgetter

_LONGEST = 4096
"""A name has 255 bytes, which need no more in any form; what is longer stays as it is."""

_CHARSETS = "utf-8|us-ascii|iso-8859-(?:[1-9]|1[0-6])|windows-125[0-8]"
_WORD = rf"=\?({_CHARSETS})(?:\*[a-z-]+)?\?([bq])\?([!->@-~]*)\?="
_WORDS = re.compile(rf"{_WORD}(?:[ \t]+{_WORD})*", re.IGNORECASE)
_EACH = re.compile(_WORD, re.IGNORECASE)
_BROWSERS = {"%22": '"', "%0A": "\n", "%0D": "\r"}
_ESCAPED = re.compile("|".join(_BROWSERS))
_HEX = re.compile(r"=([0-9A-Fa-f]{2})")


def form_name(text: str) -> str:
    """The name that a client means by `filename="..."`.

    Args:
        text: as it came; `os.fsdecode` made it of the header's bytes.

    Returns:
        A name that consists of well-formed encoded words alone: what they say. Any other: itself,
        with the characters that browsers escape. Other percent signs are the name's own.
    """
    decoded = _decode(text) if len(text) <= _LONGEST else None
    if decoded is not None:
        return decoded
    return _ESCAPED.sub(lambda found: _BROWSERS[found[0]], text)


def _decode(text: str) -> str | None:
    """The text of encoded words; None where one is not well-formed or something stands beside."""
    if not _WORDS.fullmatch(text.strip(" \t")):
        return None
    try:
        words = [(charset.lower(), _bytes(way, word)) for charset, way, word in _EACH.findall(text)]
        # Some cut a character in two, and put its halves into two words.
        return "".join(
            b"".join(part for _, part in group).decode(charset)
            for charset, group in groupby(words, itemgetter(0))
        )
    except ValueError:  # no base64, or not of that character set
        return None


def _bytes(way: str, word: str) -> bytes:
    if way in "bB":
        return binascii.a2b_base64(word, strict_mode=True)
    return _HEX.sub(lambda found: chr(int(found[1], 16)), word.replace("_", " ")).encode("latin-1")
