"""Mounts that only the service sees: a mount namespace that ends with the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import lacking


def missing() -> str | None:
    """Why nothing can be mounted here; None if it can."""
    if os.geteuid() != 0:
        return "only root may mount"
    if why_not := lacking(unshare="util-linux", nsenter="util-linux"):
        return why_not
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return tried.stderr.decode().strip() if tried.returncode else None


class Namespace:
    """A namespace that is kept by a process that sleeps.

    Attributes:
        command: before a program, for that program to run in it.
    """

    def __init__(self) -> None:
        keep = ["sh", "-c", "echo; exec sleep 100000"]
        self._keeper = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", *keep], stdout=subprocess.PIPE
        )
        assert self._keeper.stdout is not None
        self._keeper.stdout.readline()
        self.command = ("nsenter", "-t", str(self._keeper.pid), "-m")

    def mount(self, *arguments: str | Path) -> None:
        """Mount something, as mount(8) has it."""
        command = [*self.command, "mount", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def seen(self, path: Path) -> Path:
        """A path of the namespace as this process reaches it."""
        return Path(f"/proc/{self._keeper.pid}/root{path}")

    def end(self) -> None:
        """End it; its mounts go with it."""
        self._keeper.kill()
        self._keeper.communicate()


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace for a while."""
    made = Namespace()
    try:
        yield made
    finally:
        made.end()
