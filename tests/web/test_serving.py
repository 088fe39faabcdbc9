"""`serve` as a command: what it needs, what it refuses, what it says."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service import call

WITHOUT_EXTRA = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{package}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = ["xray-watcher", *{arguments}]
from xray_watcher.cli.main import main
main()
"""


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "multipart", "jinja2"])
@pytest.mark.parametrize("command", [["serve"], ["up"], ["demo", "--serve"]])
def test_without_the_extra_the_command_says_how_to_install_it(
    tmp_path: Path, package: str, command: list[str]
) -> None:
    where = [] if command[0] == "demo" else ["--root", str(tmp_path / "root")]
    code = WITHOUT_EXTRA.format(package=package, arguments=[*command, *where])
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.returncode == 2, ran.stderr
    assert "pip install 'xray-watcher[web]'" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "xray.example.org", "127.0.0.1.x"])
def test_any_address_but_loopback_needs_a_token_file(tmp_path: Path, host: str) -> None:
    ran = call("serve", "--root", str(tmp_path), "--host", host)
    assert ran.returncode == 78
    assert "flag --host" in ran.stderr
    assert "web.token_file" in ran.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_needs_none(tmp_path: Path, host: str) -> None:
    ran = call("check-config", "--root", str(tmp_path), XRAY_WATCHER_WEB__HOST=host)
    assert ran.returncode == 0, ran.stderr


def test_a_token_file_that_is_missing_or_open_to_others_ends_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    options = ("serve", "--root", str(tmp_path), "--host", "0.0.0.0")
    ran = call(*options, XRAY_WATCHER_WEB__TOKEN_FILE=str(path))
    assert ran.returncode == 78
    assert str(path) in ran.stderr
    path.touch(0o644)
    ran = call(*options, XRAY_WATCHER_WEB__TOKEN_FILE=str(path))
    assert ran.returncode == 78
    assert f"chmod 600 {path}" in ran.stderr


def test_the_command_makes_tokens_and_shows_each_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    made = call("token", "ward-7", "--role", "view", XRAY_WATCHER_WEB__TOKEN_FILE=str(path))
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"[\w-]{43}\n", made.stdout)
    assert made.stdout.strip() not in path.read_text()
    again = call("token", "ward-7", "--role", "view", XRAY_WATCHER_WEB__TOKEN_FILE=str(path))
    assert again.returncode == 2
    nowhere = call("token", "ward-7", "--role", "view")
    assert nowhere.returncode == 2
    assert "web.token_file" in nowhere.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = call("serve", "--root", str(tmp_path), "--port", str(port))
    assert ran.returncode == 1
    assert f"port {port}" in ran.stderr
    assert "web.port" in ran.stderr


def test_the_web_imports_no_torch() -> None:
    code = (
        "import sys, json, xray_watcher.web.server\n"
        "print(json.dumps([n for n in sys.modules if n in ('torch', 'torchvision')]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(ran.stdout) == []
