"""File names are UTF-8 and what is printed can be printed, whatever the locale says.

Python takes the bytes of a name for text of the locale's encoding. Under an old locale, such as
de_DE.ISO-8859-1, every name beyond ASCII would be another one in the records.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys

_SWITCH = "PYTHONUTF8"
_OUTPUT = "PYTHONIOENCODING"


def begin_in_utf8() -> None:
    """Begin the program anew in Python's UTF-8 mode, unless names are UTF-8 already.

    The process stays the same, and the programs that it starts inherit the mode. Output stays in
    the encoding of the locale, which is the terminal's.
    """
    if _is("utf-8", sys.getfilesystemencoding()) or os.environ.get(_SWITCH) == "1":
        return
    own = locale.getencoding()
    output = {} if _is("ascii", own) else {_OUTPUT: own}
    environment = output | os.environ | {_SWITCH: "1"}
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, environment)  # noqa: S606 - our own command, as it came


def escape_what_cannot_be_printed() -> None:
    """Let no command fail over a letter that the terminal's encoding lacks, or a foreign byte."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is(name: str, encoding: str) -> bool:
    return codecs.lookup(encoding).name == name
