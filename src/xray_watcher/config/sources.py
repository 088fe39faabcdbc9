"""Where settings come from: a TOML file, environment variables, flags of the command line.

Each source becomes a `Layer`: what it gives by dotted key, and what is wrong with it. Those of
pydantic-settings stop at the first mistake, ignore a missing file and a mistyped variable, and
cannot say which line a value is from.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xray_watcher.config.base import did_you_mean
from xray_watcher.config.keys import KEYS, TABLES, is_known, key_type, neighbours, similar
from xray_watcher.core.naming import one_line
from xray_watcher.errors import ConfigError

ENV_PREFIX = "XRAY_WATCHER_"
CONFIG_VARIABLE = "XRAY_WATCHER_CONFIG"
SYSTEM_CONFIG = "/etc/xray-watcher/config.toml"

_ENV_NAMES: Mapping[str, str] = {
    ENV_PREFIX + key.upper().replace(".", "__"): key for key in (*KEYS, "risk.levels")
}
_Parser = Callable[[str], object]
_PARSERS: Mapping[object, _Parser] = {int: int, float: float, str: str, Literal: str}
_IP, _PROTOCOL = "[0-9A-Fa-f.:]+", "(?:tcp|udp|sctp)"
_OF_A_SERVICE = re.compile(
    rf"{ENV_PREFIX}(?:[A-Z0-9_]+_)?(?:SERVICE_HOST={_IP}|SERVICE_PORT(?:_[A-Z0-9_]+)?=\d+"
    rf"|PORT(?:_\d+_(?:TCP|UDP|SCTP))?={_PROTOCOL}://.+"
    rf"|PORT_\d+_(?:TCP|UDP|SCTP)_(?:PROTO={_PROTOCOL}|PORT=\d+|ADDR={_IP}))"
)
"""What Kubernetes puts into every container for a Service named xray-watcher, or that and more."""

_PART = r"""[\w-]+|"[^"\n]*"|'[^'\n]*'"""
_NAME = rf"(?:{_PART})(?:[ \t]*\.[ \t]*(?:{_PART}))*"
_HEADER_OR_KEY = re.compile(rf"^[ \t]*(?:\[\[?[ \t]*({_NAME})[ \t]*\]|({_NAME})[ \t]*=)")
_ERROR_LINE = re.compile(r"\(at line (\d+), column \d+\)")


@dataclass(frozen=True, slots=True)
class Given:
    """A value and who gave it.

    Attributes:
        value: as the source has it; lists are tuples.
        origin: "default", "file PATH", "environment NAME" or "flag --name".
        where: the same for a person who looks for it: a file with its line.
    """

    value: Any
    origin: str
    where: str


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source gives.

    Attributes:
        given: values by dotted key; known keys only.
        problems: what is wrong with the source itself, one line each.
        is_whole: false when it could not be read, so that what is missing says nothing.
    """

    given: Mapping[str, Given] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    is_whole: bool = True

    def __or__(self, other: Layer) -> Layer:
        """Both together; of a key that both give, the other's value."""
        return Layer({**self.given, **other.given}, self.problems + other.problems)


# -- the file -----------------------------------------------------------------------------


def find_config_file(flag: str | None, environ: Mapping[str, str]) -> Path | None:
    """Find the file to read.

    Args:
        flag: value of `--config`, None where it was not given.
        environ: the environment: XRAY_WATCHER_CONFIG, XDG_CONFIG_HOME, HOME.

    Returns:
        The first of: the flag's file, the variable's, the user's, the machine's; None when
        no file is named and neither of the last two exists.

    Raises:
        ConfigError: a named file does not exist.
    """
    if flag is not None:
        return _named_file(flag, "flag --config", environ)
    if named := environ.get(CONFIG_VARIABLE):
        return _named_file(named, f"environment {CONFIG_VARIABLE}", environ)
    user = os.path.join(xdg_folder("XDG_CONFIG_HOME", ".config", environ), "config.toml")
    return next((Path(path) for path in (user, SYSTEM_CONFIG) if os.path.exists(path)), None)


def _named_file(path: str, where: str, environ: Mapping[str, str]) -> Path:
    full = expand_home(path, environ)
    if "\0" in full or not os.path.exists(full):
        text = f"{where}: there is no file {show_value(path)}; allowed: a TOML file"
        raise ConfigError([one_line(text)])
    return Path(full)


def xdg_folder(variable: str, below_home: str, environ: Mapping[str, str]) -> str:
    """Our folder below an XDG base folder; as that standard has it, a relative one is ignored."""
    base = environ.get(variable, "")
    if not os.path.isabs(base):
        base = os.path.join(expand_home("~", environ), below_home)
    return os.path.join(base, "xray-watcher")


def expand_home(path: str, environ: Mapping[str, str]) -> str:
    """The path with a leading `~` or `~user` replaced by that home folder."""
    home = environ.get("HOME")
    if home and (path == "~" or path.startswith("~/")):
        return home + path[1:]
    return os.path.expanduser(path)


def file_layer(path: Path | None) -> Layer:
    """What a TOML file gives; nothing for None."""
    if path is None:
        return Layer()
    try:
        text = _read_text(path)
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = _ERROR_LINE.search(str(error))
        where = f"{path}:{line[1]}" if line else str(path)
        return Layer(problems=(f"{where}: is not valid TOML: {error}",), is_whole=False)
    except ConfigError as error:
        return Layer(problems=error.problems, is_whole=False)
    lines = _number_keys(text)
    return _layer(tree, f"file {path}", lambda key: f"{path}{_line(key, lines)}")


def _read_text(path: Path) -> str:
    """The file's text, without the byte-order mark of Windows editors."""
    if not path.is_file():
        raise ConfigError([f"{path}: is not a file; allowed: a TOML file"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: is not UTF-8 text; save it as UTF-8"]) from error


def _number_keys(text: str) -> dict[str, int]:
    """The first line of each key and table, by dotted name; good enough to point at."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if not (match := _HEADER_OR_KEY.match(line)):
            continue
        header, key = (
            ".".join(part.strip("\"'") for part in re.findall(_PART, name))
            for name in match.groups(default="")
        )
        table = header or table
        lines.setdefault(header or f"{table}.{key}".lstrip("."), number)
    return lines


def _line(key: str, lines: Mapping[str, int]) -> str:
    """`:12` for a key or, in an inline table, for the table that it stands in."""
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return f":{lines[key]}" if key else ""


# -- the environment and the flags --------------------------------------------------------


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """What the variables of our prefix give; texts as they are, lists and tables as JSON."""
    layer = Layer()
    for name in sorted(environ):
        if not name.upper().startswith(ENV_PREFIX) or name == CONFIG_VARIABLE:
            continue
        key = _ENV_NAMES.get(name)
        if key is not None:
            layer |= _layer({key: _parse(key, environ[name])}, f"environment {name}")
        elif not _OF_A_SERVICE.fullmatch(f"{name}={environ[name]}"):
            layer |= Layer(problems=(_unknown_variable(name),))
    return layer


def _unknown_variable(name: str) -> str:
    hint = did_you_mean(name.upper(), (*_ENV_NAMES, CONFIG_VARIABLE))
    allowed = f"allowed: {ENV_PREFIX}KEY, {ENV_PREFIX}SECTION__KEY"
    return one_line("; ".join(filter(None, (f"environment {name}: is unknown", hint, allowed))))


def _parse(key: str, text: str) -> object:
    """The value that a variable's text stands for; what cannot be parsed is refused later."""
    try:
        parse: _Parser = _PARSERS.get(key_type(key), json.loads)
        return parse(text)
    except (ValueError, RecursionError):
        return text


def flag_layer(flags: Mapping[str, object]) -> Layer:
    """What the command line gives, by dotted key; None stands for a flag that was not used."""
    layer = Layer()
    for key, value in flags.items():
        if value is not None:
            name = key.rpartition(".")[2].replace("_", "-")
            layer |= _layer({key: value}, f"flag --{name}")
    return layer


# -- all of them --------------------------------------------------------------------------


def _layer(
    tree: Mapping[str, object], origin: str, where: Callable[[str], str] | None = None
) -> Layer:
    given: dict[str, Given] = {}
    problems: list[str] = []
    for key, value in _flatten(tree):
        at = where(key) if where else origin
        if fault := _find_fault(key):
            problems.append(one_line(f"{at}: {key}: {fault}"))
        else:
            given[key] = Given(tuple(value) if isinstance(value, list) else value, origin, at)
    return Layer(given, tuple(problems))


def _flatten(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        key = prefix + name
        if isinstance(value, dict) and key in TABLES:
            yield from _flatten(value, f"{key}.")
        else:
            yield key, value


def _find_fault(key: str) -> str:
    if key in TABLES:
        return "must be a table; allowed: " + neighbours(f"{key}.x")
    if is_known(key):
        return ""
    hint = f'did you mean "{meant}"?' if (meant := similar(key)) else ""
    return "; ".join(filter(None, ("is unknown", hint, neighbours(key))))


def show_value(value: object) -> str:
    """A value as the file would have it, on one line of bearable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else text[:97] + "..."
