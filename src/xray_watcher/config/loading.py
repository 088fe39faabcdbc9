"""Makes the settings: file, then environment, then flags; every problem at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from xray_watcher.config.checks import check
from xray_watcher.config.keys import FOLDERS, KEYS, NOTIFY_FILES, THRESHOLDS, allowed, may_be_secret
from xray_watcher.config.settings import SYSTEM_STATE_DIR, Settings
from xray_watcher.config.sources import (
    SYSTEM_CONFIG,
    Given,
    Layer,
    environment_layer,
    expand_home,
    file_layer,
    find_config_file,
    flag_layer,
    show_value,
    xdg_folder,
)
from xray_watcher.core.naming import one_line
from xray_watcher.errors import ConfigError

_PATHS = (
    *("root", "state_dir", "model.weights_file", "metrics.textfile", "web.token_file"),
    *NOTIFY_FILES,
)
_NESTING = 2  # `risk.levels.High`; further dots belong to a label under `risk.thresholds`


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force and who gave them.

    Attributes:
        settings: all of them.
        origins: for every key "default", "file PATH", "environment NAME" or "flag --name".
        file: the file that was read, None where there is none.
    """

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None


class Row(NamedTuple):
    """One line of what is in force: a key, its value, and who gave it."""

    key: str
    value: Any
    origin: str


def load_settings(
    config_file: str | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    needs_root: bool = True,
) -> LoadedSettings:
    """Make the settings from flags, else environment, else file, else defaults.

    Args:
        config_file: value of `--config`, None where it was not given.
        flags: values of other flags by dotted key; None for a flag that was not used.
        environ: the environment.
        needs_root: whether it is a mistake when `root` is set nowhere.

    Raises:
        ConfigError: something is wrong; it carries every problem, one line each.
    """
    file, from_file = _read_file(config_file, environ)
    layers = (from_file, environment_layer(environ), flag_layer(flags))
    given = _default_layer(file, environ)
    for layer in layers:
        given |= layer.given
    given = {key: _expand(key, one, environ) for key, one in given.items()}
    settings, broken = _validate(given)
    problems = [problem for layer in layers for problem in layer.problems]
    problems += [problem for of_key in broken.values() for problem in of_key]
    if from_file.is_whole:
        ignored = broken.keys() if needs_root else {*broken, "root"}
        problems += _check_whole(settings, given, ignored, file)
    if problems:
        raise ConfigError(problems)
    return LoadedSettings(settings, dict(_origins(settings, given)), file)


def _read_file(flag: str | None, environ: Mapping[str, str]) -> tuple[Path | None, Layer]:
    try:
        path = find_config_file(flag, environ)
    except ConfigError as error:
        return None, Layer(problems=error.problems, is_whole=False)
    return path, file_layer(path)


def _default_layer(file: Path | None, environ: Mapping[str, str]) -> dict[str, Given]:
    """The one default that depends on who runs the service.

    With the system's settings it is the system's folder, also for a user who may only read it. With
    another folder the service would seem not to run.
    """
    is_system = file is not None and os.path.abspath(file) == SYSTEM_CONFIG
    if is_system or os.geteuid() == 0 or os.access(SYSTEM_STATE_DIR, os.W_OK):
        return {}
    folder = xdg_folder("XDG_STATE_HOME", ".local/state", environ)
    return {"state_dir": Given(folder, "default", "default")}


def _expand(key: str, one: Given, environ: Mapping[str, str]) -> Given:
    """Expand `~` in a path; folders of `[intake]` may stay relative, for they lie below root."""
    if not isinstance(one.value, str) or not one.value or key not in (*_PATHS, *FOLDERS):
        return one
    path = expand_home(one.value, environ)
    return replace(one, value=os.path.abspath(path) if key in _PATHS else path)


def _validate(given: Mapping[str, Given]) -> tuple[Settings, dict[str, list[str]]]:
    """The settings and the problems by key; keys with a problem are left at their default."""
    try:
        return Settings(**_tree(given)), {}
    except ValidationError as error:
        broken: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False):
            key = _find_key(detail, given)
            if key in broken and detail["type"] == "too_short":
                continue  # of a list only, whose wrong elements are reported already
            broken.setdefault(key, []).append(_problem(key, detail, given[key].where))
    sound = {key: one for key, one in given.items() if key not in broken}
    return Settings(**_tree(sound)), broken


def _tree(given: Mapping[str, Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, one in given.items():
        *tables, name = key.split(".", _NESTING)
        table = tree
        for step in tables:
            table = table.setdefault(step, {})
        table[name] = one.value
    return tree


def _find_key(detail: ErrorDetails, given: Mapping[str, Given]) -> str:
    """The given key that an error lies under: without positions in a list."""
    steps = [str(step) for step in detail["loc"]]
    prefixes = (".".join(steps[:length]) for length in range(len(steps), 0, -1))
    return next(key for key in prefixes if key in given)


def _problem(key: str, detail: ErrorDetails, where: str) -> str:
    hint = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else ""
    value = "the value" if may_be_secret(key) else show_value(detail["input"])
    parts = (f"{value} is not allowed", hint, f"allowed: {allowed(key)}")
    return one_line(f"{where}: {key}: {'; '.join(filter(None, parts))}")


def _check_whole(
    settings: Settings, given: Mapping[str, Given], ignored: AbstractSet[str], file: Path | None
) -> Iterator[str]:
    """The problems of the whole, without those about an ignored key."""
    for problem in check(settings):
        if ignored.isdisjoint(problem.keys):
            sources = (given[key].where for key in problem.keys if key in given)
            where = next(sources, str(file or "no configuration file"))
            yield one_line(f"{where}: {problem.keys[0]}: {problem.text}")


def _origins(settings: Settings, given: Mapping[str, Given]) -> Iterator[tuple[str, str]]:
    labels = [f"{THRESHOLDS}.{label}" for label in settings.risk.thresholds]
    for key in KEYS:
        for name in labels if key == THRESHOLDS and labels else [key]:
            yield name, given[name].origin if name in given else "default"


# -- what `check-config` shows ------------------------------------------------------------


def describe(loaded: LoadedSettings) -> list[Row]:
    """Every key with the value in force, folders with their full path, and who gave it."""
    settings = loaded.settings
    return [Row(key, find_value(settings, key), origin) for key, origin in loaded.origins.items()]


def find_value(settings: Settings, key: str) -> Any:
    """The value of a key that is in force; of a folder its full path."""
    if key in FOLDERS:
        return getattr(settings.folders, FOLDERS[key])
    value: Any = settings
    for step in key.split(".", _NESTING):
        value = value[step] if isinstance(value, Mapping) else getattr(value, step)
    return list(value) if isinstance(value, tuple) else value


def differences(old: Settings, new: Settings) -> Iterator[str]:
    """The keys whose values differ."""
    return (key for key in KEYS if find_value(old, key) != find_value(new, key))


def describe_text(loaded: LoadedSettings) -> str:
    """What is in force as a table of key, origin and value, one key a line."""
    rows = [(row.key, row.origin, show_value(row.value)) for row in describe(loaded)]
    key_width, origin_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        one_line(f"{key:<{key_width}}  {origin:<{origin_width}}  {value}")
        for key, origin, value in rows
    )


def describe_json(loaded: LoadedSettings) -> dict[str, Any]:
    """What is in force as data for JSON: the file, and key, value and origin of every setting."""
    return {
        "file": str(loaded.file) if loaded.file else None,
        "settings": [row._asdict() for row in describe(loaded)],
    }
