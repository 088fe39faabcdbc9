"""The real daemon and the real web beside it, on a port that is free."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests

from service import COMMAND, PATIENCE_S, STUB, Service, environment


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class WebService(Service):
    """Both processes on one root; each can be started, stopped and killed by itself."""

    def __init__(
        self,
        root: Path,
        command: Sequence[str] = STUB,
        web: str = "",
        web_command: Sequence[str] = COMMAND,
    ) -> None:
        super().__init__(root, command)
        self._web_command = web_command
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        text = self.config.read_text()
        self.config.write_text(f"{text}\n[web]\nport = {self.port}\n{web}\n")
        self.web: subprocess.Popen[bytes] | None = None
        self.web_log = self.root.parent / f"{self.root.name}-web.log"
        self.http = requests.Session()

    def start_web(self) -> None:
        """Start `serve` and wait until it answers."""
        with self.web_log.open("ab") as log:
            self.web = subprocess.Popen(
                [*self._web_command, "serve", "--config", str(self.config)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment(**self.env),
            )
        self.wait_for(self._answers)

    def start_both(self) -> None:
        """Start both, and wait until the daemon watches."""
        self.start()
        self.start_web()
        self.wait_for(lambda: self.http.get(f"{self.url}/healthz").status_code == 200)

    def _answers(self) -> bool:
        try:
            self.http.get(f"{self.url}/healthz", timeout=5)
        except requests.ConnectionError:
            return False
        return True

    def wait_for(self, is_so: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Wait for something that the running web should bring about."""
        until_s = time.monotonic() + seconds
        while not is_so():
            assert self.web is None or self.web.poll() is None, self.web_log.read_text()
            assert time.monotonic() < until_s, self.web_log.read_text()
            time.sleep(0.05)

    def stop_web(self) -> int:
        """SIGTERM to `serve`; returns its exit code."""
        assert self.web is not None
        self.web.send_signal(signal.SIGTERM)
        code = self.web.wait(30)
        self.web = None
        return code

    def kill_web(self) -> None:
        """SIGKILL to `serve`, if it runs."""
        if self.web is not None:
            self.web.kill()
            self.web.wait()
            self.web = None

    def kill(self) -> None:
        """End both, if they run."""
        super().kill()
        self.kill_web()
        self.http.close()

    def predict(self, *files: tuple[str, bytes], **more: Any) -> requests.Response:
        """Send files as a client does."""
        form = [("files", file) for file in files]
        return self.http.post(f"{self.url}/predict_batch", files=form, timeout=100, **more)

    def get(self, path: str) -> Any:
        """The JSON that a path answers."""
        return self.http.get(self.url + path, timeout=60).json()

    def uploads(self) -> list[str]:
        """What lies at the second door."""
        folder = self.root / ".xray-watcher" / "uploads"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def multipart(files: Sequence[tuple[str, bytes]], boundary: str = "xyz") -> bytes:
    """A body as curl makes it."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n'
        b"Content-Type: image/png\r\n\r\n%s\r\n" % (boundary.encode(), name.encode(), content)
        for name, content in files
    ]
    return b"".join(parts) + b"--%s--\r\n" % boundary.encode()


def raw_request(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """One request with exactly these headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def lines_of(response: requests.Response) -> list[dict[str, Any]]:
    """The objects of a streamed answer."""
    return [json.loads(line) for line in response.iter_lines()]
