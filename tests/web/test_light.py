"""The process that faces the network holds no decoder, no network and no mail, and is small."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from webservice import WebService

HEAVY = {"PIL", "kornia_rs", "numpy", "onnxruntime", "simplejpeg", "smtplib", "torch"}
MOST_MB = 60


def test_the_web_imports_no_decoder_no_network_and_no_mail() -> None:
    code = "import sys, xray_watcher.web.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[WebService]:
    made = WebService(tmp_path / "root")
    yield made
    made.kill()


def test_the_web_takes_60_megabytes_at_most_when_it_has_begun_to_answer(
    service: WebService,
) -> None:
    service.start_web()
    assert service.web is not None
    status = Path(f"/proc/{service.web.pid}/status").read_text()
    (resident,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    assert int(resident.split()[1]) / 1024 <= MOST_MB
