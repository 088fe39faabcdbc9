"""A share as other hosts have it: `passthrough.py` mounted over a folder, well or ill as told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import lacking

SCRIPT = Path(__file__).with_name("passthrough.py")


def missing() -> str | None:
    """Why no FUSE file system can be mounted here; None if it can."""
    if not os.access("/dev/fuse", os.W_OK):
        return "/dev/fuse may not be used"
    return lacking(fusermount3="fuse3")


class Share:
    """A pass-through file system whose misbehaviour is set by `becomes`.

    Other hosts see `on_server`, we see `mounted`.
    """

    def __init__(self, folder: Path) -> None:
        self.on_server, self.mounted = folder / "on-the-server", folder / "mounted"
        self._control = folder / "control"
        for made in (self.on_server, self.mounted):
            made.mkdir()
        self.becomes("ok")
        self._server: subprocess.Popen[bytes] | None = None

    def becomes(self, mode: str) -> None:
        """What happens to every call from now on, as passthrough.py says."""
        new = self._control.with_suffix(".new")
        new.write_text(mode)
        os.rename(new, self._control)

    def mount(self) -> None:
        paths = [str(path) for path in (self.on_server, self.mounted, self._control)]
        self._server = subprocess.Popen(
            [sys.executable, str(SCRIPT), *paths], stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            if os.path.ismount(self.mounted):
                return
            time.sleep(0.05)
        raise RuntimeError("the file system was not mounted")

    def crash(self) -> None:
        """The server is gone: every call fails with ENOTCONN."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def unmount(self) -> None:
        """An empty folder lies where the share was, whoever has files open on it."""
        subprocess.run(["fusermount3", "-u", "-z", self.mounted], capture_output=True, check=False)
        self.crash()


@contextmanager
def mounted(folder: Path) -> Iterator[Share]:
    """A share that is mounted, and unmounted in the end, however ill it is then."""
    share = Share(folder)
    share.mount()
    try:
        yield share
    finally:
        share.becomes("ok")
        share.unmount()
