"""The real service as a process of its own, for the tests that need one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "xray_watcher")
STUB = (sys.executable, str(Path(__file__).parent / "storms" / "stub_service.py"))
"""The service with a network that costs nothing, where what it sees is not asked."""
PATIENCE_S = 300.0
"""After which a process hangs: far longer than anything takes on the slowest machine."""
QUICK = """
root = {root}
state_dir = {state}
timezone = "Europe/Athens"
[intake]
settle_seconds = 0.5
incomplete_after_minutes = 0.05
min_side = 16
min_free_bytes = 0
[batch]
quiet_seconds = 0.3
[model]
weights = "untrained"
"""


def environment(**more: str) -> dict[str, str]:
    """Ours without settings that the machine may have."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XRAY_WATCHER_")}
    return kept | more


def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=environment(**env),
        timeout=PATIENCE_S,
        check=False,
    )


class Service:
    """A service on one root; start it as often as you like."""

    def __init__(self, root: Path, command: Sequence[str] = COMMAND, **env: str) -> None:
        self._command = command
        self.root, self.inbox = root, root / "inbox"
        self.env = env
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.config = root.parent / f"{root.name}.toml"
        state = root.parent / f"{root.name}-state"
        self.config.write_text(
            QUICK.format(root=json.dumps(str(root)), state=json.dumps(str(state)))
        )
        self.log = root.parent / f"{root.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start `run`; its log is added to the file `log`."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, "run", "--config", str(self.config), *arguments],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment(**self.env),
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def ended(self) -> int:
        """Wait until it has ended of itself; returns its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as hung:
            raise AssertionError(self.log.read_text()) from hung

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def worker_pid(self) -> int:
        """The inner process, which does the work and holds the locks."""
        assert self.process is not None
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def hears(self, number: signal.Signals) -> bool:
        """Whether the program has a handler for a signal; the interpreter starts without one."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command with the service's configuration."""
        return call(name, "--config", str(self.config), *arguments, **self.env)

    def events(self) -> list[Mapping[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_until(self, is_so: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Wait for something that the running service should bring about."""
        until_s = time.monotonic() + seconds
        while not is_so():
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until_s, self.log.read_text()
            time.sleep(0.05)
