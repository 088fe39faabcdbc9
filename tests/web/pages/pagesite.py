"""The real service with the phantom network and the real web server, for tests with a browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service import COMMAND
from webservice import WebService

HOSTILE = "<img src=x onerror=alert(1)>.png"
FORMULA = "=cmd|' C'!A1.png"


class Site(WebService):
    """`run` and `serve` on one root and a free port of loopback."""

    def __init__(self, root: Path, web: str = "") -> None:
        super().__init__(root, COMMAND, web)
        self.config.write_text(self.config.read_text().replace('"untrained"', '"phantom"'))

    def drop(self, source: str, files: Mapping[str, bytes]) -> None:
        """Copy files into a folder of the inbox."""
        folder = self.inbox / source
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def wait_until_filed(self, images: int) -> None:
        """Wait until the ledger has given this many indexes and nothing is in hand."""
        self.wait_until(lambda: self._filed() >= images)

    def _filed(self) -> int:
        status = self.get("/api/v1/status")
        return -1 if status["pending"] else int(status["next_index"])

    def parse_index(self, name: str) -> int:
        """The index of the image that was filed last under a name; -1 when there is none."""
        found = (
            int(path.name.partition("_")[0])
            for folder in ("classified_images", "rejected")
            for path in (self.root / folder).rglob("*")
            if path.name.partition("_")[2] == name
        )
        return max(found, default=-1)
