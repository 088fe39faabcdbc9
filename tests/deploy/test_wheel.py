"""The wheel alone, installed by pip without a checkout."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and the libraries of this one; its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    quiet = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    wheel = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([*pip, *wheel, HOME], check=True, env=quiet)
    (made,) = folder.glob("*.whl")
    home = folder / "venv"
    venv.create(home)
    install = ["--python", home / "bin/python", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *install, made], check=True, env=quiet)
    (packages,) = home.glob("lib/python*/site-packages")
    # Only the libraries: what this environment's own .pth files add, the checkout, is left out.
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    return home


def ran(home: Path, where: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    call = [home / "bin" / command[0], *command[1:]]
    return subprocess.run(call, cwd=where, env=environ, capture_output=True, text=True, check=False)


def test_it_is_the_wheel_that_runs_and_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = ran(installed, tmp_path, "python", "-c", "import xray_watcher as x; print(x.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed)


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    demo = ran(installed, tmp_path, "xray-watcher", "demo")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "not a diagnosis" in demo.stdout
    assert list(tmp_path.glob("demo-run/*/classified_images/High/*"))


def test_the_example_of_the_settings_comes_with_the_wheel(installed: Path, tmp_path: Path) -> None:
    example = installed / "share/xray-watcher/xray-watcher.toml"
    printed = ran(installed, tmp_path, "python", "-m", "xray_watcher.config.example")
    assert example.read_text(encoding="utf-8") == printed.stdout
    mine = tmp_path / "mine.toml"
    mine.write_text(printed.stdout.replace("/srv/xray", str(tmp_path / "root")), encoding="utf-8")
    shown = ran(installed, tmp_path, "xray-watcher", "check-config", "--config", str(mine))
    assert shown.returncode == 0, shown.stderr
    assert str(tmp_path / "root") in shown.stdout


def test_the_manual_pages_come_with_the_wheel(installed: Path) -> None:
    for page in ("man1/xray-watcher.1", "man5/xray-watcher.toml.5"):
        assert (installed / "share/man" / page).is_file()
