"""The two examples of the product's guide run as they stand against `xray-watcher up`."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from arrivals import picture_number

import audit
from service import COMMAND, QUICK, call, environment
from webservice import raw_request

EXAMPLES = Path(__file__).parent / "guide"
GUIDE = Path(__file__).parents[3] / "shared" / "product-guide.md"
PORT = 8080  # the guide's


def is_port_free() -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return False
        return True


def wait_for_port() -> None:
    until_s = time.monotonic() + 60
    while not is_port_free():
        if time.monotonic() > until_s:
            pytest.skip(f"port {PORT}, which the guide names, is in use on this machine")
        time.sleep(1)


@pytest.fixture
def port() -> Iterator[None]:
    """The guide's port, for one test at a time: others may run beside this one."""
    with (Path(tempfile.gettempdir()) / "xray-watcher-guide-port").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        wait_for_port()
        yield


@pytest.fixture
def up(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """`xray-watcher up` with its defaults for the web."""
    request.getfixturevalue("port")
    config = tmp_path / "config.toml"
    root, state = tmp_path / "root", tmp_path / "state"
    config.write_text(QUICK.format(root=json.dumps(str(root)), state=json.dumps(str(state))))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "up", "--config", str(config)], stderr=log, env=environment()
        )
    try:
        wait_until_ready(process, tmp_path / "log")
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + 90
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until_s, log.read_text()
        try:
            if requests.get(f"http://localhost:{PORT}/healthz", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    process.send_signal(number)
    return process.wait(30)


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide does not lie beside the project")
@pytest.mark.parametrize(("language", "name"), [("bash", "curl.sh"), ("python", "example.txt")])
def test_the_examples_here_are_those_of_the_guide(language: str, name: str) -> None:
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks == [(EXAMPLES / name).read_text(encoding="utf-8")]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_guide_s_curl_example_runs_as_it_stands(
    up: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"patient{number}_xray.jpg").write_bytes(picture_number(number))
    ran = subprocess.run(
        ["bash", str(EXAMPLES / "curl.sh")], cwd=tmp_path, capture_output=True, check=True
    )
    answer = json.loads(ran.stdout)
    assert list(answer)[:3] == ["results", "summary", "output_directory"]
    assert answer["output_directory"] == "classified_images"
    names = [f"patient{number}_xray.jpg" for number in (1, 2, 3)]
    assert [result["filename"] for result in answer["results"]] == names
    assert [result["index"] for result in answer["results"]] == [0, 1, 2]
    for result in answer["results"]:
        assert list(result)[:8] == [
            "filename", "index", "top_label", "top_probability", "risk_level",
            "top_predictions", "all_probs", "saved_path",
        ]  # fmt: skip
        path = f"classified_images/{result['risk_level']}/{result['index']:04d}_"
        assert result["saved_path"] == path + result["filename"]
        assert (tmp_path / "root" / result["saved_path"]).exists()
        assert [*result["top_predictions"][0]] == ["label", "prob"]
    assert sum(answer["summary"][level] for level in ("High", "Medium", "Low")) == 3
    assert stop(up, signal.SIGTERM) == 0
    audit.check(tmp_path / "root", [picture_number(number) for number in (1, 2, 3)])


def test_the_guide_s_python_example_runs_as_it_stands(
    up: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (tmp_path / "xrays").mkdir()
    for number in range(12):
        (tmp_path / "xrays" / f"film{number}.jpg").write_bytes(picture_number(number))
    (tmp_path / "xrays" / "broken.jpg").write_bytes(b"no picture")
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "example.txt")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    heads = dict(line.split(": ") for line in lines[:3])
    assert [*heads] == ["High Risk", "Medium Risk", "Low Risk"]
    assert sum(map(int, heads.values())) == 12
    assert len(lines) == 3 + 13
    assert "broken.jpg: Rejected - None" in lines
    assert stop(up, signal.SIGINT) == 0


def test_one_that_ends_ends_the_other_and_gives_its_exit_code(
    up: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
    assert len(children) == 2
    refused = call("up", "--config", str(tmp_path / "config.toml"))
    assert refused.returncode in (1, 11), "the port and the ledger are taken"
    status, _, _ = raw_request(PORT, "GET", "/healthz", {"Host": f"localhost:{PORT}"})
    assert status == 200, "and those that hold them go on"
    web = next(pid for pid in children if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes())
    subprocess.run(["kill", "-KILL", web], check=True)
    assert up.wait(30) == 128 + signal.SIGKILL
    for pid in children:
        assert not Path(f"/proc/{pid}").exists()


def test_nothing_is_left_running_when_it_is_killed(up: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
    up.kill()
    up.wait()
    until_s = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < until_s
        time.sleep(0.1)


@pytest.mark.usefixtures("port")
def test_the_demonstration_serves_the_pages_until_ctrl_c(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "demo", "--serve", "--folder", str(tmp_path / "demo")],
            stdout=out, stderr=subprocess.STDOUT, env=environment(PYTHONUNBUFFERED="1"),
            # It must hear Ctrl-C, also where a script started the tests in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip
    try:
        told = tmp_path / "out"
        until_s = time.monotonic() + 100
        while "press Ctrl-C" not in told.read_text():
            assert process.poll() is None, told.read_text()
            assert time.monotonic() < until_s, told.read_text()
            time.sleep(0.2)
        page = requests.get(f"http://localhost:{PORT}/", timeout=20)
        assert page.status_code == 200
        assert "SIMULATION" in page.text
        sent = {"files": ("mine.png", picture_number(1))}
        answer = requests.post(f"http://localhost:{PORT}/predict_batch", files=sent, timeout=60)
        assert answer.json()["results"][0]["filename"] == "mine.png"
        assert stop(process, signal.SIGINT) == 0, told.read_text()
        assert "28 files dropped, 28 accounted for" in told.read_text()
        assert is_port_free()
    finally:
        process.kill()
        process.wait()
