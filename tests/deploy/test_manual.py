"""The manual pages and the completion files: current, and taken by the programs that read them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from xray_watcher.cli.main import cli
from xray_watcher.cli.manual import command_page, settings_page
from xray_watcher.config.keys import KEYS

MAN = Path(__file__).parents[2] / "deploy" / "man"
PAGES = {"xray-watcher.1": command_page, "xray-watcher.toml.5": settings_page}


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is missing; .ci/test-tools installs it"
    )


@pytest.mark.parametrize("name", PAGES)
def test_the_page_in_the_repository_is_the_program_s(name: str) -> None:
    """Else: `make manual`."""
    assert (MAN / name).read_text(encoding="ascii") == PAGES[name]()


@needs("mandoc")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_finds_nothing_to_complain_of(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", MAN / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""


@needs("man")
@pytest.mark.parametrize("name", PAGES)
def test_man_shows_the_page_without_a_warning(name: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", MAN / name],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MANPAGER": "cat", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    assert "NAME" in done.stdout


def commands(group: click.Group, path: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{path}{name} ")
        else:
            found[path + name] = command
    return found


def test_every_command_option_and_setting_stands_in_the_pages() -> None:
    page, settings = (render().replace("\\-", "-") for render in (command_page, settings_page))
    for name, command in commands(cli).items():
        assert re.search(rf'^\.SS "{re.escape(name)}[ "]', page, re.MULTILINE), name
        for option in (o for p in command.params for o in p.opts if o.startswith("--")):
            assert option in page
    for key in KEYS:
        assert f"XRAY_WATCHER_{key.upper().replace('.', '__')}." in settings or key == (
            "risk.thresholds"
        )


# -- completion -----------------------------------------------------------------------------

COMPLETED = {
    "bash": (
        'source "$1"; COMP_WORDS=(xray-watcher wei); COMP_CWORD=1; '
        '_xray_watcher_completion xray-watcher; printf "%s\\n" "${COMPREPLY[@]}"'
    ),
    "fish": 'source "$argv[1]"; complete --do-complete "xray-watcher wei"',
    "zsh": (  # as zsh itself would call it: what the function hands to the completion system
        "compdef() { : }; compadd() { print -l -- $@ }; "
        "_describe() { print -l -- ${${(P)3}%%:*} }; "
        'words=(xray-watcher wei) CURRENT=2; source "$1"; _xray_watcher_completion'
    ),
}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The command under its own name, wherever the tests run."""
    path = tmp_path / "bin" / "xray-watcher"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{Path(sys.executable).parent}/xray-watcher" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("shell", [pytest.param(s, marks=needs(s)) for s in COMPLETED])
def test_a_shell_completes_a_command_with_the_file_that_is_installed(
    shell: str, program: Path, tmp_path: Path
) -> None:
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    told = subprocess.run(
        [program],
        capture_output=True,
        text=True,
        check=True,
        env={**env, "_XRAY_WATCHER_COMPLETE": f"{shell}_source"},
    )
    assert told.stderr == ""
    file = tmp_path / f"completion.{shell}"
    file.write_text(told.stdout)
    arguments = [str(file)] if shell == "fish" else [shell, str(file)]
    done = subprocess.run(
        [shell, "-c", COMPLETED[shell], *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**env, "HOME": str(tmp_path)},
        timeout=60,
    )
    assert "weights" in done.stdout.split(), done.stdout + done.stderr
