"""A rejected file on its way back: the side-car that `retry` writes for the daemon."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass

from xray_watcher.system.files import load_facts

_RETRY = "retry-"


@dataclass(frozen=True, slots=True)
class Returned:
    """A rejected file on its way back.

    Attributes:
        index: under which it was rejected.
        inbox_path: where in the inbox it came from, as the file system has it.
        folder: key of the folder that it lay in.
        filed_name: its name there.
        put_back_at: when, for people; the daemon does without.
    """

    index: int
    inbox_path: bytes
    folder: str
    filed_name: str
    put_back_at: str = ""

    @property
    def name(self) -> str:
        """Its name among the uploads; each index has one, so that no file has two."""
        return f"{_RETRY}{self.index:012d}"

    def to_json(self) -> bytes:
        """The content of its small file; the path in base64, for it may be no text."""
        facts = {
            "retry_of": self.index,
            "inbox_path_b64": base64.b64encode(self.inbox_path).decode("ascii"),
            "folder": self.folder,
            "filed_name": self.filed_name,
            "put_back_at": self.put_back_at,
        }
        return json.dumps(facts).encode("ascii")

    @classmethod
    def read(cls, path: str, index: int) -> Returned:
        """Read the small file; a path that is missing or not one of ours is `recovered/INDEX`.

        Raises:
            OSError: it cannot be read now.
        """
        facts = load_facts(path)
        folder, filed_name = (str(facts.get(key, "")) for key in ("folder", "filed_name"))
        try:
            inbox_path = base64.b64decode(facts["inbox_path_b64"], validate=True)
        except (KeyError, TypeError, ValueError):
            inbox_path = b""
        if not _is_below(inbox_path):
            inbox_path = f"recovered/{index:012d}".encode()
        return cls(index, inbox_path, folder, filed_name if "/" not in filed_name else "")


def _is_below(path: bytes) -> bool:
    """Whether a path is one that a look at the inbox can have found."""
    parts = path.split(b"/")
    return b"\0" not in path and not {b"", b".", b".."}.intersection(parts)


def parse_retry_index(name: str) -> int | None:
    """The index in a name that `retry` made; None for an upload."""
    digits = name.removeprefix(_RETRY)
    is_ours = digits != name and re.fullmatch(r"\d{12}", digits, re.ASCII)
    return int(digits) if is_ours else None
