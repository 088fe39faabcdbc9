"""One life of the service for the progress storm: good files, a bad one, and what is seen."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from bad_files import FuseFaults
from faults import Faults
from PIL import Image

import audit
from service import STUB, Service

QUICKER = {
    "XRAY_WATCHER_INTAKE__SETTLE_SECONDS": "0.2",
    "XRAY_WATCHER_INTAKE__SCAN_SECONDS": "1",
    "XRAY_WATCHER_BATCH__QUIET_SECONDS": "0.1",
    "XRAY_WATCHER_MODEL__DECODERS": "1",
}
LATER_S = 5.0
"""So much longer may the other files take."""
BACK_OFF_S = 60.0
"""The longest wait between two tries of one file; after it what is sound again must be filed."""
OTHER_DISK = Path("/dev/shm")
_FILE_TROUBLES = {"files"}


def film(number: int) -> bytes:
    """A picture of some 60 KB, another for each number: its middle is not in its first block."""
    pixels = np.random.default_rng(number).integers(0, 256, (256, 256), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Stuck(AssertionError):
    """What had to come about in time has not."""


def _counts(said: str) -> set[int]:
    """The numbers of a sentence, and how many files it tells of in all."""
    parts = re.findall(r"\b(\d+) (?:images? waits?|files or folders)\b", said)
    return {int(n) for n in re.findall(r"\b\d+\b", said)} | {sum(map(int, parts))}


class Life:
    """A service with faults, on folders of its own.

    Args:
        folder: for everything.
        apart: the results lie on another file system.
        real: the root lies on a file system that really fails, and no library is preloaded.
        env: more settings.

    Attributes:
        arrived: the contents of all that was put into the inbox or uploaded.
        young: the names of the good files that were put there last.
    """

    def __init__(
        self, folder: Path, *, apart: bool = False, real: bool = False, **env: str
    ) -> None:
        self.folder, self.faults = folder, FuseFaults(folder) if real else Faults(folder)
        above = self._above = folder  # what the service sees, and what we do
        if isinstance(self.faults, FuseFaults):
            above, self._above = self.faults.mounted, self.faults.source
        self.gate, self.arrived = folder / "gate", list[bytes]()
        self.gate.touch()
        self.root = self.results = self._above / "root"
        self.inbox, self.work = self.root / "inbox", self.root / ".xray-watcher"
        self.inbox.mkdir(parents=True)
        settings = {
            **QUICKER,
            **env,
            "XRAY_WATCHER_ROOT": str(above / "root"),
            "XRAY_STUB_WAITS_FOR": str(self.gate),
        }
        if apart:
            self.results = Path(tempfile.mkdtemp(prefix="progress-", dir=OTHER_DISK))
            for key, name in (
                ("CLASSIFIED", "classified_images"),
                ("REJECTED", "rejected"),
                ("LOGS", "logs"),
            ):
                settings[f"XRAY_WATCHER_INTAKE__{key}"] = str(self.results / name)
        self.systemd = Systemd(folder / "systemd")
        self.service = Service(
            folder / "root",  # its name is that of the state and the log beside it
            command=STUB,
            **settings,
            **self.faults.env,
            NOTIFY_SOCKET=self.systemd.address,
        )
        self.young: list[str] = []
        self._number = 0
        self._hashes: dict[Path, str] = {}

    def start(self) -> None:
        """Start it and wait until it watches."""
        log = self.service.log
        before = log.stat().st_size if log.exists() else 0
        self.service.start()
        self.service.wait_until(lambda: b'"watching"' in log.read_bytes()[before:])

    @property
    def is_running(self) -> bool:
        """Whether the service has not ended."""
        process = self.service.process
        return process is not None and process.poll() is None

    def close(self) -> None:
        """End it and remove what lies elsewhere."""
        self.service.kill()
        self.systemd.close()
        if self.results != self.root:
            shutil.rmtree(self.results)

    # -- files --------------------------------------------------------------------------------

    def put(self, name: str, *, second_name: bool = False) -> str:
        """Put a new picture into the inbox, whole at once; returns its name."""
        self._number += 1
        content = film(secrets.randbits(60))
        path, part = self.inbox / name, self._above / "part"
        path.parent.mkdir(exist_ok=True)
        part.write_bytes(content)
        if second_name:
            os.link(part, self.folder / f"second-{self._number}")
        os.rename(part, path)
        self.arrived.append(content)
        return path.name

    def others(self) -> list[str]:
        """Put three good files into the inbox, before and behind all others by their names."""
        self._number += 1
        number = self._number
        self.young = [self.put(f"{letter}{number:04d}.png") for letter in "amz"]
        return self.young

    def upload(self, mark: str) -> str:
        """Hand a picture over as the web does; returns its name, by which it is filed."""
        uploads, content = self.work / "uploads", film(secrets.randbits(60))
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{mark}-000000"
        (uploads / f"{name}.json").write_text(json.dumps({"filename": f"{mark}.png"}))
        (uploads / f"{name}.part").write_bytes(content)
        os.rename(uploads / f"{name}.part", uploads / f"{name}.image")
        self.arrived.append(content)
        return f"{mark}.png"

    def filed(self) -> set[str]:
        """The names of what is filed, as they were in the inbox."""
        return {re.sub(r"^[0-9]+_", "", path.name) for path in audit.filed(self.results).values()}

    def has_filed(self, number: int) -> bool:
        """Whether the content that arrived with this number is filed, under whatever name."""
        wanted = audit.sha256(self.arrived[number])
        for path in audit.filed(self.results).values():
            if path not in self._hashes:
                with suppress(FileNotFoundError):  # moved or removed meanwhile
                    self._hashes[path] = audit.sha256(path.read_bytes())
        return wanted in self._hashes.values()

    def claimed(self) -> int:
        """How many files lie claimed."""
        return sum(path.name.isdecimal() for path in self.work.iterdir())

    def wait_filed(self, names: Sequence[str], seconds: float) -> float:
        """Wait until these are filed; returns how long that took.

        Raises:
            Stuck: they were not in that time.
        """
        return self.wait(lambda: set(names) <= self.filed(), seconds)

    def wait(self, is_so: Callable[[], bool], seconds: float) -> float:
        """Wait for something; returns how long that took.

        Raises:
            Stuck: it did not come about in that time, or the service ended.
        """
        began_s = time.monotonic()
        while not is_so():
            if not self.is_running:
                raise Stuck("the service ended")
            if time.monotonic() > began_s + seconds:
                raise Stuck(f"not after {seconds:.0f} s")
            time.sleep(0.05)
        return time.monotonic() - began_s

    # -- what it says --------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `status --json` tells."""
        told: dict[str, Any] = json.loads(self.service.command("status", "--json").stdout)
        return told

    def complaint(self, waiting: range, named: int, component: str = "") -> str | None:
        """What is wrong with how `status` names the trouble of some files; None if nothing is.

        Args:
            waiting: how many it may say that wait.
            named: how many must be named as a trouble; the others are at least counted.
            component: what may be named beside the files.
        """
        said = ""
        for _ in range(8):  # it is told every two seconds
            status = self.status()
            problems: dict[str, str] = status["troubles"]
            if others := sorted(problems.keys() - _FILE_TROUBLES - {component}):
                said = f"blames {', '.join(f'{other}: {problems[other]}' for other in others)}"
                time.sleep(0.5)
                continue
            counts = _counts(problems.get("files", ""))
            seen = (status["waiting_in_inbox"] or 0) + status["pending"]
            if counts.intersection(waiting) or component in problems:
                return None
            if not named and seen >= waiting.stop - 1:
                return None
            said = f"does not say that {waiting.stop - 1} wait: {problems}, {seen} counted"
            time.sleep(0.5)
        return said

    # -- the end ------------------------------------------------------------------------------

    def left(self) -> bool:
        """Whether a picture lies in the inbox, among the uploads or in the work folder."""
        inbox = [path for path in self.inbox.rglob("*.png") if path.is_file()]
        return bool(inbox) or self.claimed() > 0 or any((self.work / "uploads").glob("*.image"))

    def stop(self) -> None:
        """Ask it to stop.

        Raises:
            AssertionError: it did not end in order, or not in time.
        """
        try:
            code = self.service.stop(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            raise AssertionError("it did not end when it was asked to") from None
        assert code == 0, f"it ended with {code}"

    def end(self, *, missing: int = 0) -> None:
        """Ask it to stop, and check that every image is there once and nothing else is.

        Args:
            missing: how many records there may be of a file that was not there for a while.

        Raises:
            AssertionError: a promise was broken.
        """
        self.stop()
        if missing:
            self._check_but_for(missing)
        else:
            audit.check(self.results, self.arrived, inbox=self.inbox)
        audit.check_nothing_else(self.results, self.inbox)

    def _check_but_for(self, missing: int) -> None:
        """As the auditor, but some records may be of files that had vanished."""
        assert not self.left(), "files are left"
        files = Counter(audit.sha256(p.read_bytes()) for p in audit.filed(self.results).values())
        assert files == Counter(map(audit.sha256, self.arrived)), "lost or doubled"
        hashes = [record["sha256"] for record in audit.jsonl_records(self.results)]
        assert Counter(filter(None, hashes)) == files, "the logs differ from the folders"
        assert hashes.count(None) <= missing, "records of missing files"


class Systemd:
    """Listens as systemd does.

    Attributes:
        longest_gap_s: the longest time for which the watchdog was not fed.
        fed: how often it was.
    """

    def __init__(self, path: Path) -> None:
        self.address, self.longest_gap_s, self.fed = str(path), 0.0, 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._last_s = 0.0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            now_s = time.monotonic()
            if b"STOPPING=1" in message:
                self._last_s = 0.0
            elif b"WATCHDOG=1" in message:
                self.fed += 1
                if self._last_s:
                    self.longest_gap_s = max(self.longest_gap_s, now_s - self._last_s)
                self._last_s = now_s

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()


@contextmanager
def life(*, apart: bool = False, real: bool = False, **env: str) -> Iterator[Life]:
    """A life that is ended, whatever comes of it."""
    folder = Path(tempfile.mkdtemp(prefix="xray-watcher-progress-"))
    lived = Life(folder, apart=apart, real=real, **env)
    try:
        yield lived
    finally:
        lived.close()
        lived.faults.close()
        shutil.rmtree(folder)


@cache
def can_give_up() -> bool:
    """Whether the service has the setting `give_up_after_minutes`."""
    text = Path(__file__).parents[2] / "config" / "xray-watcher.toml"
    return "give_up_after_minutes" in text.read_text(encoding="utf-8")


def told(text: str) -> None:
    """A line of progress for whoever waits."""
    print(text, flush=True, file=sys.stderr)
