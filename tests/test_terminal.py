"""What somebody else has written never speaks to a terminal: names, reasons, headers, paths."""

from __future__ import annotations

import ast
import os
import socket
import threading
from pathlib import Path

import pytest
import structlog

from service import call
from xray_watcher import log
from xray_watcher.cli.options import say
from xray_watcher.core.naming import one_line

CLI = Path(__file__).parents[1] / "src" / "xray_watcher" / "cli"
EVIL = "\x1b]0;OWNED\x07\x1b[2J\x9b31m\u202e\u2028\udc9b"


def is_speechless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_what_is_not_printable_is_escaped_and_the_rest_stays() -> None:
    assert one_line("Größe 3 µm\n\x1b[2J") == "Größe 3 µm\\n\\x1b[2J"
    assert one_line(EVIL).isprintable()


def test_lines_for_people_keep_their_ends_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(f"a{EVIL}\nb\r")
    shown = capsys.readouterr().out
    assert is_speechless(shown)
    assert len(shown.splitlines()) == 2


def test_commands_print_for_people_through_one_function() -> None:
    """The two that do not print metrics, and JSON in ASCII."""
    direct = [
        f"{path.name}: {ast.unparse(node)}"
        for path in CLI.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "print")
    ]
    assert sorted(one.partition("(")[0] for one in direct) == [
        "options.py: click.echo", "options.py: click.echo", "upkeep.py: click.echo",
    ]  # fmt: skip
    assert any("collect_metrics" in one for one in direct)
    assert any("json.dumps" in one for one in direct)


def test_the_log_of_a_terminal_is_speechless(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    terminal = os.fdopen(theirs, "w")
    monkeypatch.setattr("sys.stderr", terminal)
    before = structlog.get_config()
    try:
        log.set_up("info")
        structlog.get_logger().warning("upload refused", client=EVIL, detail="a\nb")
        shown = os.read(ours, 65536).decode()
    finally:
        structlog.configure(**before)
        terminal.close()
        os.close(ours)
    assert "OWNED" in shown
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert not {*"\x07\x9b\u202e\u2028"} & {*shown}
    assert len(shown.splitlines()) == 1


def test_a_server_s_reason_does_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    """`weights fetch` quotes it; a title and colours of the terminal could be set (W12)."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        client, _ = listening.accept()
        client.recv(65536)
        client.sendall(b"HTTP/1.1 404 \x1b]0;OWNED\x07\x1b[2J" + b"x" * 500 + b"\r\n\r\n")
        client.close()

    thread = threading.Thread(target=answer)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
    ran = call("weights", "fetch", "densenet121-res224-chex", "--state-dir", str(tmp_path),
               "--url", url, "--trust")  # fmt: skip
    thread.join(10)
    listening.close()
    assert ran.returncode != 0
    assert "404 \\x1b]0;OWNED" in ran.stderr
    assert is_speechless(ran.stderr)
    assert len(ran.stderr) < 400
