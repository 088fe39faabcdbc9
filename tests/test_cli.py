"""The commands as people call them: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service import call
from xray_watcher import __version__
from xray_watcher.ledger.ledger import Ledger


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    path = tmp_path / "a picture.png"
    path.write_bytes(file.getvalue())
    return path


def test_help_and_version_are_there_at_once_and_import_no_torch() -> None:
    seconds = []
    for _ in range(3):
        before = os.times()
        assert "status" in call("--help").stdout
        after = os.times()  # of the processor, for others may be at work on this machine
        before_s = before.children_user + before.children_system
        seconds.append(after.children_user + after.children_system - before_s)
    assert min(seconds) < 0.5
    assert call("--version").stdout.strip() == f"xray-watcher, version {__version__}"


@pytest.mark.parametrize(
    "command",
    ["run", "demo", "predict", "status", "summary", "retry", "weights", "check-config"],
)
def test_every_command_explains_itself(command: str) -> None:
    found = call(command, "--help")
    assert found.returncode == 0
    assert len(found.stdout.splitlines()) > 4


def test_a_command_that_does_not_exist_is_wrong_usage() -> None:
    assert call("rnu").returncode == 2


def test_predict_scores_files_where_they_lie_and_rejects_what_is_none(
    picture: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.png"
    notes.write_text("no picture")
    files = [str(picture), str(notes), str(tmp_path / "nowhere.jpg"), str(tmp_path)]
    before = sorted(tmp_path.iterdir())
    found = call("predict", "--json", "--weights", "untrained", *files)
    assert found.returncode == 3, found.stderr
    answer = json.loads(found.stdout)
    first, second, third, fourth = answer["results"]
    assert first["filename"] == "a picture.png"
    assert first["simulated"]
    assert len(first["top_predictions"]) == 3
    assert first["top_label"] == max(first["all_probs"], key=first["all_probs"].get)
    assert second["rejected"]["code"] == "wrong_format"
    assert third["risk_level"] == fourth["risk_level"] == "Rejected"
    assert "not a diagnosis" in answer["notice"]
    assert sorted(tmp_path.iterdir()) == before


def test_predict_prints_for_people_what_it_says_for_programs(picture: Path) -> None:
    found = call("predict", "--weights", "untrained", str(picture))
    assert found.returncode == 0
    assert "a picture.png" in found.stdout
    assert "SIMULATION" in found.stdout
    assert "not a diagnosis" in found.stdout


def test_predict_without_weights_says_the_three_ways_on(picture: Path, tmp_path: Path) -> None:
    found = call("predict", str(picture), "--state-dir", str(tmp_path / "state"))
    assert found.returncode == 10
    assert "weights fetch" in found.stderr


@pytest.mark.parametrize(
    "arguments", [("run",), ("status",), ("check-config",), ("summary",), ("retry", "--all")]
)
def test_a_wrong_configuration_ends_every_command_with_every_mistake(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    config = tmp_path / "x.toml"
    config.write_text("colour = 1\n[batch]\nmax_size = 0\n")
    found = call(*arguments, "--config", str(config), HOME=str(tmp_path))
    assert found.returncode == 78
    assert "3 mistakes" in found.stderr
    for key in ("colour", "batch.max_size", "root"):
        assert key in found.stderr


def test_check_config_says_what_is_in_force_and_from_where(tmp_path: Path) -> None:
    found = call("check-config", "--root", "/r", "--json", HOME=str(tmp_path))
    assert found.returncode == 0
    rows = {row["key"]: row for row in json.loads(found.stdout)["settings"]}
    assert rows["root"] == {"key": "root", "value": "/r", "origin": "flag --root"}
    assert rows["batch.max_size"]["origin"] == "default"
    text = call("check-config", "--root", "/r", HOME=str(tmp_path)).stdout
    assert "intake.inbox" in text
    assert "/r/inbox" in text


BAD_CHANNELS = {
    "address with a port of none": ('[notify.webhook]\nurl = "http://h:99999/geheim"', b""),
    "address with half a bracket": ('[notify.webhook]\nurl = "http://[::1/geheim"', b""),
    "secret that is no base64": (
        '[notify.webhook]\nurl = "http://h/"\nsecret_file = "{file}"',
        b"whsec_geheim-geheim-geheim",
    ),
    "address in a file that is none": ('[notify.webhook]\nurl_file = "{file}"', b"h/geheim"),
    "password that is not UTF-8": (
        '[notify.smtp]\nhost="h"\nsender="a@b.c"\nto=["d@e.f"]\nuser="u"\npassword_file="{file}"',
        b"geheim\xf6",
    ),
}


@pytest.mark.parametrize(("text", "content"), BAD_CHANNELS.values(), ids=BAD_CHANNELS)
@pytest.mark.parametrize("arguments", [("check-config",), ("run", "--once"), ("notify", "test")])
def test_a_channel_that_could_never_tell_is_a_mistake_in_the_configuration(
    arguments: tuple[str, ...], text: str, content: bytes, tmp_path: Path
) -> None:
    """Whoever asks gets the same answer, and nobody is shown the secret."""
    secret, config = tmp_path / "file", tmp_path / "x.toml"
    secret.write_bytes(content)
    secret.chmod(0o600)
    head = f'root = "{tmp_path}/r"\nstate_dir = "{tmp_path}/s"\n[model]\nweights = "untrained"\n'
    config.write_text(head + text.replace("{file}", str(secret)))
    found = call(*arguments, "--config", str(config))
    assert found.returncode == 78, found.stderr
    assert "a mistake" in found.stderr
    assert "geheim" not in found.stdout + found.stderr


def test_commands_before_the_first_start_say_that_there_is_no_ledger(tmp_path: Path) -> None:
    folders = ("--root", str(tmp_path / "r"), "--state-dir", str(tmp_path / "s"))
    assert call("summary", *folders).returncode == 1
    assert "no ledger" in call("retry", "--all", *folders).stderr
    status = call("status", *folders)
    assert status.returncode == 4
    assert "not running" in status.stdout


def test_a_day_that_is_no_date_is_wrong_usage(tmp_path: Path) -> None:
    found = call(
        "summary", "yesterday", "--root", str(tmp_path / "r"), "--state-dir", str(tmp_path / "s")
    )
    assert found.returncode == 2
    assert "yesterday" in found.stderr


@pytest.mark.parametrize("name", ["9" * 25, "9" * 5000, "9" * 25 + "_a.jpg", "٣", "0007_\n.jpg"])
def test_retry_of_what_is_no_rejected_file_says_so(tmp_path: Path, name: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    Ledger(str(state / "ledger.sqlite3")).close()
    ended = call("retry", "--root", str(tmp_path / "root"), "--state-dir", str(state), name)
    assert ended.returncode == 2
    assert "is not a rejected file" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_retry_wants_names_or_all(tmp_path: Path) -> None:
    assert call("retry", "--root", str(tmp_path)).returncode == 2


def test_weights_are_listed_with_their_labels(tmp_path: Path) -> None:
    found = call("weights", "list", "--json", "--state-dir", str(tmp_path))
    rows = {row["name"]: row for row in json.loads(found.stdout)}
    assert rows["densenet121-res224-chex"]["state"] == "missing"
    assert len(rows["densenet121-res224-chex"]["labels"]) == 11
    assert "Edema" in call("weights", "list", "--state-dir", str(tmp_path)).stdout


def test_phantoms_are_written_with_a_table_of_what_was_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    assert call("phantoms", str(folder), "--count", "5", "--seed", "3").returncode == 0
    rows = (folder / "drawn.csv").read_text().splitlines()
    assert rows[0] == "filename,drawn"
    names = {row.partition(",")[0] for row in rows[1:]}
    assert len(names) == 5
    assert names | {"drawn.csv"} == {path.name for path in folder.iterdir()}
    again = tmp_path / "again"
    assert call("phantoms", str(again), "--count", "5", "--seed", "3").returncode == 0
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    assert call("phantoms", str(folder)).returncode == 2
