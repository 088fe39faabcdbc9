"""deploy/systemd: what systemd itself says of the units, without running them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = ("xray-watcher", "xray-watcher-web")
CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("xray-watcher", ()),
    ("xray-watcher", ("gpu",)),
    ("xray-watcher", ("shares",)),
    ("xray-watcher", ("gpu", "shares")),
    ("xray-watcher", ("network",)),
    ("xray-watcher-web", ()),
    ("xray-watcher-web", ("shares",)),
    ("xray-watcher-web", ("network", "shares")),
)
HIGHEST_EXPOSURE = 1.5

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="`make test` installs systemd; this is without"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units as an installation has them, with a program that is there."""
    program = tmp_path / "opt/xray-watcher/venv/bin/xray-watcher"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        text = (DEPLOY / "systemd" / f"{unit}.service").read_text()
        text = text.replace("/opt/xray-watcher", str(tmp_path / "opt/xray-watcher"))
        (tmp_path / f"{unit}.service").write_text(text)
    return tmp_path


def with_drop_ins(folder: Path, unit: str, names: tuple[str, ...]) -> None:
    for name in names:
        drop_in = folder / f"{unit}.service.d" / f"{name}.conf"
        drop_in.parent.mkdir(exist_ok=True)
        shutil.copy(DEPLOY / "systemd" / "examples" / f"{name}.conf", drop_in)


def analysed(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_COLORS": "0"},
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("unit", "drop_ins"), CASES)
def test_systemd_finds_nothing_to_complain_of(
    folder: Path, unit: str, drop_ins: tuple[str, ...]
) -> None:
    with_drop_ins(folder, unit, drop_ins)
    assert analysed(folder, "verify", "--man=no", f"{folder}/{unit}.service") == ""


@pytest.mark.parametrize(("unit", "drop_ins"), CASES)
def test_the_exposure_of_a_unit_stays_low(
    folder: Path, unit: str, drop_ins: tuple[str, ...]
) -> None:
    with_drop_ins(folder, unit, drop_ins)
    told = analysed(folder, "security", "--offline=true", "--no-pager", f"{folder}/{unit}.service")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert found, told
    assert float(found[1]) <= HIGHEST_EXPOSURE


@pytest.mark.parametrize("unit", UNITS)
def test_what_breaks_the_network_is_not_asked_for(unit: str) -> None:
    """Both cost nothing in the exposure's figure, and PyTorch its work (docs/install.md)."""
    lines = (DEPLOY / "systemd" / f"{unit}.service").read_text().splitlines()
    settings = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    assert settings.isdisjoint({"MemoryDenyWriteExecute", "ProcSubset"})


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_reaches_loopback_alone_and_lets_its_children_confine_themselves(unit: str) -> None:
    lines = (DEPLOY / "systemd" / f"{unit}.service").read_text().splitlines()
    assert {"IPAddressDeny=any", "IPAddressAllow=localhost"} <= set(lines)
    filters = [line.partition("=")[2].split() for line in lines if line.startswith("SystemCallF")]
    assert ["seccomp", "landlock_create_ruleset", "landlock_restrict_self"] in filters


@pytest.mark.parametrize("unit", UNITS)
def test_a_decoder_that_the_kernel_kills_for_memory_does_not_end_the_service(unit: str) -> None:
    """By default systemd stops the whole unit; a main process that is killed ends it anyway."""
    lines = (DEPLOY / "systemd" / f"{unit}.service").read_text().splitlines()
    assert [line for line in lines if line.startswith("OOMPolicy")] == ["OOMPolicy=continue"]


def test_user_and_folders_are_understood(tmp_path: Path) -> None:
    """As for another root, so that nothing of this machine is touched."""
    (tmp_path / "etc").mkdir()
    sysusers = DEPLOY / "sysusers.d" / "xray-watcher.conf"
    done = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run", sysusers],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Creating group 'xray'" in done.stderr
    assert "Creating user 'xray-watcher'" in done.stderr
