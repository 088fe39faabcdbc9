"""What the commands share: the options by which each finds its settings, JSON, exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xray_watcher.core.naming import one_line

if TYPE_CHECKING:
    from xray_watcher.config.loading import LoadedSettings
    from xray_watcher.config.settings import Settings

EXIT_FAILED = 1
EXIT_SOME_REJECTED = 3
EXIT_NOT_HEALTHY = 4
EXIT_INTERRUPTED = 130

_Command = TypeVar("_Command", bound=Callable[..., Any])


def settings_options(command: _Command) -> _Command:
    """The options by which every command finds its settings."""
    for option in (
        click.option("--state-dir", metavar="FOLDER", help="Ledger, lock and weights."),
        click.option("--root", metavar="FOLDER", help="The folder of inbox and results."),
        click.option("--config", metavar="FILE", help="The configuration file."),
    ):
        command = option(command)
    return command


def weights_options(command: _Command) -> _Command:
    """The options that name the network."""
    of_file = click.option("--weights-file", metavar="FILE", help="A checkpoint of the named set.")
    of_set = click.option(
        "--weights", metavar="NAME", help="The set of weights; see `weights list`."
    )
    return of_set(of_file(command))


def load_with_origins(
    options: Mapping[str, str | None],
    more: Mapping[str, object] | None = None,
    *,
    needs_root: bool = True,
) -> LoadedSettings:
    """Load the settings from flags, environment and file, with the origin of each.

    Root becomes the owner of their folders here, before anything in them is opened.

    Args:
        options: of a command with `settings_options`, perhaps with `weights_options`.
        more: its other flags by dotted key; None stands for one that was not used.
        needs_root: whether it is a mistake when `root` is set nowhere.

    Raises:
        ConfigError: something is wrong; it carries every problem.
        UsageError: root cannot become the owner of the folders.
    """
    from xray_watcher.config.loading import load_settings

    flags = {
        "root": options["root"],
        "state_dir": options["state_dir"],
        "model.weights": options.get("weights"),
        "model.weights_file": options.get("weights_file"),
        **(more or {}),
    }
    found = load_settings(options["config"], flags, os.environ, needs_root=needs_root)
    folders = found.settings.folders
    if work_as_owner(folders.state, found.settings.root and folders.root):
        # `run` at SIGHUP, and the children of `up`, load the settings again.
        os.environ["XRAY_WATCHER_STATE_DIR"] = folders.state
        if found.file is not None:
            os.environ["XRAY_WATCHER_CONFIG"] = os.path.abspath(found.file)
    return found


def load_from_options(
    options: Mapping[str, str | None],
    more: Mapping[str, object] | None = None,
    *,
    needs_root: bool = True,
) -> Settings:
    """Load the settings alone; see `load_with_origins`."""
    return load_with_origins(options, more, needs_root=needs_root).settings


def work_as_owner(first: str, *others: str) -> bool:
    """As root, become the owner of the folders that a command works on, and say so.

    Args:
        first: the folder that counts, if it is there.
        others: the next ones; "" for none.

    Returns:
        Whether this process is somebody else now.

    Raises:
        UsageError: root cannot become that user.
    """
    if os.geteuid() != 0:
        return False
    from xray_watcher.system.identity import become_owner

    owner = become_owner(first, *others)
    if owner is not None:
        say(f"As the user {owner.name}, to whom {owner.place} belongs.", err=True)
    return owner is not None


def say(text: str, *, err: bool = False) -> None:
    """Print lines for people; control characters in them do not reach the terminal."""
    click.echo("\n".join(map(one_line, text.split("\n"))), err=err)


def print_json(data: object) -> None:
    """Print data for programs."""
    click.echo(json.dumps(data, indent=2))
