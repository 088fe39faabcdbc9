"""The settings: where they come from, and everything that can be wrong with them, at once."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from xray_watcher.config import checks, loading
from xray_watcher.config.example import render_example
from xray_watcher.config.keys import KEYS
from xray_watcher.config.loading import (
    LoadedSettings,
    describe,
    describe_json,
    describe_text,
    load_settings,
)
from xray_watcher.config.settings import IntakeSettings, Settings
from xray_watcher.core.catalogue import WEIGHT_SETS
from xray_watcher.errors import ConfigError

EXAMPLE = Path(__file__).parents[1] / "config" / "xray-watcher.toml"


def load(
    text: str = "",
    *,
    tmp_path: Path,
    flags: Mapping[str, object] | None = None,
    **environ: str,
) -> LoadedSettings:
    """Load a file with this text; HOME is a folder without configuration."""
    file = tmp_path / "x.toml"
    file.write_text(text)
    env = {"HOME": str(tmp_path / "home")} | environ
    return load_settings(str(file), flags or {}, env)


def problems(text: str, tmp_path: Path, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        load(text, tmp_path=tmp_path, **environ)
    assert raised.value.exit_code == 78
    return raised.value.problems


# -- where they come from -----------------------------------------------------------------


def test_a_flag_counts_before_the_environment_before_the_file_before_the_default(
    tmp_path: Path,
) -> None:
    text = 'root = "/file"\nstate_dir = "/state"\n[batch]\nmax_size = 4\nquiet_seconds = 3'
    loaded = load(
        text,
        tmp_path=tmp_path,
        flags={"root": "/flag", "model.weights": None},
        XRAY_WATCHER_ROOT="/environment",
        XRAY_WATCHER_BATCH__MAX_SIZE="5",
    )
    assert loaded.settings.root == "/flag"
    assert loaded.settings.batch.max_size == 5
    assert loaded.settings.batch.quiet_seconds == 3
    assert loaded.settings.batch.max_wait_seconds == 10
    assert loaded.origins["root"] == "flag --root"
    assert loaded.origins["batch.max_size"] == "environment XRAY_WATCHER_BATCH__MAX_SIZE"
    assert loaded.origins["batch.quiet_seconds"] == f"file {tmp_path / 'x.toml'}"
    assert loaded.origins["batch.max_wait_seconds"] == "default"


def test_lists_and_tables_come_from_the_environment_as_json(tmp_path: Path) -> None:
    loaded = load(
        'root = "/r"',
        tmp_path=tmp_path,
        XRAY_WATCHER_INTAKE__IGNORE='["*.bak"]',
        XRAY_WATCHER_RISK__THRESHOLDS='{"Edema": 0.6}',
    )
    assert loaded.settings.intake.ignore == ("*.bak",)
    assert loaded.settings.risk_rules().thresholds == {"Edema": 0.6}


def test_the_user_s_file_is_found_without_being_named(tmp_path: Path) -> None:
    file = tmp_path / ".config" / "xray-watcher" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('root = "/r"')
    loaded = load_settings(None, {}, {"HOME": str(tmp_path)})
    assert loaded.file == file
    assert loaded.settings.root == "/r"


def test_the_system_s_settings_mean_its_state_also_for_a_user_who_may_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise `status` says of a running service that it does not run."""
    for name in ("system.toml", "own.toml"):
        (tmp_path / name).write_text('root = "/r"')
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(loading, "SYSTEM_CONFIG", str(tmp_path / "system.toml"))
    states = [
        load_settings(str(tmp_path / name), {}, {"HOME": "/home/a"}).settings.state_dir
        for name in ("system.toml", "own.toml")
    ]
    assert states == ["/var/lib/xray-watcher", "/home/a/.local/state/xray-watcher"]


def test_folders_lie_below_the_root_unless_they_are_set(tmp_path: Path) -> None:
    text = 'root = "/r"\nstate_dir = "/s"\n[intake]\nrejected = "bad"\nlogs = "/var/log/x"'
    folders = load(text, tmp_path=tmp_path).settings.folders
    assert folders.inbox == "/r/inbox"
    assert folders.classified == "/r/classified_images"
    assert folders.rejected == "/r/bad"
    assert folders.logs == "/var/log/x"
    assert folders.ledger == "/s/ledger.sqlite3"


def test_a_share_that_hangs_does_not_keep_the_settings_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "realpath", lambda _path: time.sleep(60))
    monkeypatch.setattr(checks, "_ANSWER_S", 0.2)
    settings = Settings(root=str(tmp_path))
    assert list(checks.check(settings)) == []
    overlapping = Settings(root=str(tmp_path), intake=IntakeSettings(logs="inbox/logs"))
    assert len(list(checks.check(overlapping))) == 1


@pytest.mark.parametrize(
    ("text", "network", "seconds"),
    [("", False, 2), ("", True, 30), ("settle_seconds = 2.0", True, 2)],
)
def test_files_settle_longer_on_network_file_systems_unless_that_is_set(
    text: str, network: bool, seconds: float, tmp_path: Path
) -> None:
    intake = load(f'root = "/r"\n[intake]\n{text}', tmp_path=tmp_path).settings.intake
    assert intake.settle_seconds_on(network=network) == seconds


@pytest.mark.parametrize("name", WEIGHT_SETS)
def test_the_default_levels_name_every_label_of_every_set(name: str, tmp_path: Path) -> None:
    loaded = load(f'root = "/r"\n[model]\nweights = "{name}"', tmp_path=tmp_path)
    assert set(loaded.settings.weight_set.labels) <= loaded.settings.risk_rules().level_of.keys()


def test_the_default_levels_are_those_of_the_guide() -> None:
    level_of = Settings().risk_rules().level_of
    guide = {
        "High": "Consolidation, Pneumothorax, Edema, Pneumonia, Lung Lesion",
        "Medium": "Atelectasis, Effusion, Cardiomegaly, Enlarged Cardiomediastinum, Lung Opacity",
        "Low": "Fracture",
    }
    for level, labels in guide.items():
        assert {level_of[label] for label in labels.split(", ")} == {level}


# -- what can be wrong --------------------------------------------------------------------

ROOT = 'root = "/r"\n'
BROKEN = {
    "no root": ("", "root", "is not set"),
    "not toml": ("root = ", "x.toml", "not valid TOML"),
    "twice": (ROOT + ROOT, "x.toml:2", "not valid TOML"),
    "unknown key": (ROOT + "colour = 3", "colour", "is unknown"),
    "mistyped key": (ROOT + "[batch]\nmax_sise = 3", "batch.max_sise", 'did you mean "batch.max_s'),
    "unknown table": (ROOT + "[bacth]\nmax_size = 3", "bacth", "is unknown"),
    "key in the wrong table": (ROOT + "[batch]\nsettle_seconds = 3", "batch", "intake.settle"),
    "table for a value": (ROOT + "[timezone]\nx = 1", "timezone", "is not allowed"),
    "value for a table": (ROOT + "batch = 3", "batch", "must be a table"),
    "text for a number": (ROOT + '[batch]\nmax_size = "16"', "batch.max_size", "whole number"),
    "fraction for a whole number": (ROOT + "[batch]\nmax_size = 1.5", "batch.max_size", "whole"),
    "truth for a number": (ROOT + "[batch]\nmax_size = true", "batch.max_size", "whole number"),
    "number for a text": ("root = 3", "root", "is not allowed"),
    "too small": (ROOT + "[batch]\nmax_size = 0", "batch.max_size", "at least 1"),
    "too large": (ROOT + "[batch]\nmax_size = 100000", "batch.max_size", "at most 1024"),
    "negative time": (ROOT + "[intake]\nsettle_seconds = -1", "settle_seconds", "above 0"),
    "no number": (ROOT + "[intake]\nsettle_seconds = nan", "settle_seconds", "is not allowed"),
    "endless": (ROOT + "[intake]\nscan_seconds = inf", "scan_seconds", "is not allowed"),
    "no such choice": (ROOT + '[intake]\nwatch = "always"', "intake.watch", '"events"'),
    "no such zone": (ROOT[:-1] + '\ntimezone = "Europe/Athen"', "timezone", "Europe/Athens"),
    "no such weights": (ROOT + '[model]\nweights = "densenet121-res224-chx"', "weights", "-chex"),
    "suffix without dot": (ROOT + '[intake]\nsuffixes = ["jpg"]', "suffixes", "dot"),
    "no suffixes": (ROOT + "[intake]\nsuffixes = []", "suffixes", "is not allowed"),
    "same folder twice": (ROOT + '[intake]\nrejected = "inbox"', "rejected", "is also"),
    "folder in a folder": (ROOT + '[intake]\nlogs = "inbox/logs"', "logs", "lies in"),
    "state in the inbox": (ROOT + 'state_dir = "/r/inbox/s"', "state_dir", "lies in"),
    "no such label": (ROOT + '[risk.levels]\nHigh = ["Oedema"]', "risk.levels.High", "Oedema"),
    "label without a level": (ROOT + "[risk.levels]\nLow = []", "risk.levels", "Fracture"),
    "label in two levels": (ROOT + '[risk.levels]\nLow = ["Fracture", "Edema"]', "Low", "Edema"),
    "no such level": (ROOT + "[risk.levels]\nUrgent = []", "risk.levels.Urgent", "is unknown"),
    "threshold of 1": (ROOT + '[risk.thresholds]\n"Edema" = 1.0', "Edema", "below 1"),
    "onnx on cuda": (ROOT + '[model]\nengine = "onnx"\ndevice = "cuda"', "model.device", "cpu"),
    "onnx in bfloat16": (
        ROOT + '[model]\nengine = "onnx"\nprecision = "bfloat16"',
        "model.precision",
        "float32",
    ),
    "onnx with a checkpoint": (
        ROOT + '[model]\nengine = "onnx"\nweights_file = "/a.pt"',
        "model.weights_file",
        "import",
    ),
    "threshold of no label": (ROOT + '[risk.thresholds]\n"Cold" = 0.5', "Cold", "no network"),
    "mail from nobody": (
        ROOT + '[notify.smtp]\nhost = "m"\nto = ["a@b.c"]',
        "notify.smtp.sender",
        "not set",
    ),
    "mail to nobody": (
        ROOT + '[notify.smtp]\nhost = "m"\nsender = "a@b.c"',
        "notify.smtp.to",
        "nobody",
    ),
    "user without password": (
        ROOT + '[notify.smtp]\nuser = "u"',
        "notify.smtp.password_file",
        "both",
    ),
    "line break in an address": (
        ROOT + '[notify.smtp]\nto = ["a@b.c\\nBcc: d@e.f"]',
        "notify.smtp.to",
        "mail addresses",
    ),
    "password in an address": (
        ROOT + '[notify.webhook]\nurl = "https://u:p@h/"',
        "notify.webhook.url",
        "https://",
    ),
    "two addresses": (
        ROOT + '[notify.webhook]\nurl = "https://h/"\nurl_file = "/x"',
        "notify.webhook.url_file",
        "one of them",
    ),
    "port of no address": (
        ROOT + '[notify.webhook]\nurl = "http://h:99999/x"',
        "notify.webhook.url",
        "from 1 to 65535",
    ),
    "half a bracket": (
        ROOT + '[notify.webhook]\nurl = "http://[::1/x"',
        "notify.webhook.url",
        "IPv6",
    ),
    "port in a mail server's name": (
        ROOT + '[notify.smtp]\nhost = "mail:25"',
        "notify.smtp.host",
        "neither a name",
    ),
    "sender without a host": (
        ROOT + '[notify.smtp]\nsender = "xray"',
        "notify.smtp.sender",
        "name@host",
    ),
    "program without path": (
        ROOT + '[notify.command]\nargv = ["page"]',
        "notify.command.argv",
        "full path",
    ),
    "no such event": (
        ROOT + '[notify.command]\nevents = ["low"]',
        "notify.command.events",
        '"high"',
    ),
    "textfile of another name": (
        ROOT + '[metrics]\ntextfile = "/x.txt"',
        "metrics.textfile",
        ".prom",
    ),
    "age below the floor": (
        ROOT + "[retention]\nlow_days = 7",
        "retention.low_days",
        "below retention.keep_at_least_days, 30",
    ),
    "nul in a path": ('root = "/r\\u0000x"', "root", "is not allowed"),
}


@pytest.mark.parametrize(("text", "key", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_each_mistake_is_told_with_its_key_and_what_is_allowed(
    text: str, key: str, said: str, tmp_path: Path
) -> None:
    found = problems(text, tmp_path)
    assert any(key in problem and said in problem for problem in found), found
    assert all("\n" not in problem for problem in found)


@pytest.mark.parametrize(
    "text",
    [
        '[notify.webhook]\nurl = "https://xray:geheim@h/"',
        '[notify.webhook]\nurl = "http://h:geheim/"',
        '[notify.webhook]\nurl = "hooks.example/geheim"',
        '[notify.webhook]\nurl = ["https://h/geheim"]',
        '[notify]\nwebhook = "https://xray:geheim@h/"',
        '[notify.smtp]\nhost = "xray:geheim@mail"',
        '[notify.smtp]\npassword = "geheim"',
        '[notify.command]\nargv = "/bin/page --password geheim"',
    ],
)
def test_no_complaint_repeats_what_may_be_a_secret(text: str, tmp_path: Path) -> None:
    found = problems(ROOT + text, tmp_path)
    assert found
    assert not [problem for problem in found if "geheim" in problem]


SERVICE = {
    "SERVICE_HOST": "10.43.218.30",
    "SERVICE_PORT": "8080",
    "SERVICE_PORT_HTTP": "8080",
    "PORT": "tcp://10.43.218.30:8080",
    "PORT_8080_TCP": "tcp://10.43.218.30:8080",
    "PORT_8080_TCP_PROTO": "tcp",
    "PORT_8080_TCP_PORT": "8080",
    "PORT_8080_TCP_ADDR": "fd00::1e",
}


@pytest.mark.parametrize("service", ["XRAY_WATCHER", "XRAY_WATCHER_WEB"])
def test_what_kubernetes_says_of_a_service_of_our_name_is_passed_over(
    service: str, tmp_path: Path
) -> None:
    given = {f"{service}_{name}": value for name, value in SERVICE.items()}
    assert load_settings(None, {"root": "/r"}, {"HOME": str(tmp_path)} | given).settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("XRAY_WATCHER_PORT", "8080", "is unknown"),
        ("XRAY_WATCHER_WEB_PORT", "8080", "XRAY_WATCHER_WEB__PORT"),
        ("XRAY_WATCHER_SERVICE_HOST", "mail.example", "is unknown"),
        ("XRAY_WATCHER_SERVICE", "x", "is unknown"),
        ("XRAY_WATCHER_PORT_8080_TCP_NAME", "x", "is unknown"),
        ("xray_watcher_service_host", "10.0.0.1", "is unknown"),
        ("XRAY_WATCHER_ROT", "/r", "XRAY_WATCHER_ROOT"),
        ("XRAY_WATCHER_BATCH_MAX_SIZE", "3", "XRAY_WATCHER_BATCH__MAX_SIZE"),
        ("XRAY_WATCHER_BATCH__MAX_SIZE", "many", "whole number"),
        ("XRAY_WATCHER_INTAKE__IGNORE", "*.bak", "is not allowed"),
        ("xray_watcher_root", "/r", "is unknown"),
    ],
)
def test_a_mistaken_variable_is_told_by_its_name(
    name: str, value: str, said: str, tmp_path: Path
) -> None:
    found = problems(ROOT, tmp_path, **{name: value})
    assert any(name in problem and said in problem for problem in found), found


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = 'colour = 1\n[batch]\nmax_size = 0\n[intake]\nwatch = "x"\nrejected = "inbox"'
    found = problems(text, tmp_path, XRAY_WATCHER_ROT="/r")
    for key in ("colour", "max_size", "watch", "XRAY_WATCHER_ROT", "root"):
        assert any(key in problem for problem in found), key


@pytest.mark.parametrize("flag", ["nowhere.toml", ".", ""])
def test_a_named_file_that_is_none_is_a_mistake(flag: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_settings(str(tmp_path / flag), {"root": "/r"}, {"HOME": str(tmp_path)})


def test_a_file_that_is_not_text_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b'root = "\xff"')
    with pytest.raises(ConfigError, match="UTF-8"):
        load_settings(str(file), {}, {"HOME": str(tmp_path)})


def test_the_byte_order_mark_of_a_windows_editor_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xef\xbb\xbf" + b'root = "/r"\r\n[batch]\r\nmax_size = 3\r\n')
    loaded = load_settings(str(file), {}, {"HOME": str(tmp_path)})
    assert loaded.settings.batch.max_size == 3


def test_commands_that_touch_no_folder_need_no_root(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    assert load_settings(None, {}, env, needs_root=False).settings.root == ""


# -- what is shown ------------------------------------------------------------------------


def test_what_is_in_force_names_every_key_with_its_origin(tmp_path: Path) -> None:
    loaded = load(ROOT, tmp_path=tmp_path)
    assert [row.key for row in describe(loaded)] == list(KEYS)
    text = describe_text(loaded)
    assert len(text.splitlines()) == len(KEYS)
    show_value = json.loads(json.dumps(describe_json(loaded)))
    assert {row["key"] for row in show_value["settings"]} == set(KEYS)


def test_the_example_file_is_made_from_the_settings_and_sound(tmp_path: Path) -> None:
    assert EXAMPLE.read_text() == render_example(), (
        "run: python -m xray_watcher.config.example > config/xray-watcher.toml"
    )
    everything_on = "\n".join(
        line.removeprefix("#") if re.match(r"#( {4}|\S)", line) else line
        for line in EXAMPLE.read_text().splitlines()
    )
    loaded = load(everything_on, tmp_path=tmp_path)
    origin = f"file {tmp_path / 'x.toml'}"
    unset = [key for key, found in loaded.origins.items() if found != origin]
    assert unset in ([], ["risk.thresholds"])
