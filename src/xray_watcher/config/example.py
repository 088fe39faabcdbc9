"""Writes the commented example of the configuration file from the settings themselves.

    python -m xray_watcher.config.example > config/xray-watcher.toml

Every key but `root` is commented out, at its default: a copy of the file then does not
freeze today's defaults, nor those that depend on the machine (`settle_seconds`, `state_dir`).
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from xray_watcher.config.keys import FIELDS, TABLES, THRESHOLDS, allowed

EXAMPLE_ROOT = "/srv/xray"

_WIDTH = 100
_HEAD = """\
# Settings of xray-watcher. Each is given with what it does, what is allowed, and its default.
# A setting that is commented out stands at its default; remove the "#" before it to change it.
# What counts: a command-line flag, else the environment (XRAY_WATCHER_ROOT,
# XRAY_WATCHER_INTAKE__SETTLE_SECONDS, ...; lists and tables as JSON), else this file, else the
# default. `xray-watcher check-config` says what is in force and where it is from.
# Made by `python -m xray_watcher.config.example` from config/settings.py.
"""


def render_example() -> str:
    """The example file: every key with its sentence, what is allowed, its unit and default."""
    return _HEAD + "".join(_entry(key, field) for key, field in FIELDS.items())


def _entry(key: str, field: FieldInfo) -> str:
    if key in TABLES:
        terms = f" Allowed: {allowed(key)}." if key == THRESHOLDS else ""
        return f"\n\n{_comment(f'{field.description}{terms}')}[{key}]\n"
    default = "as below" if isinstance(field.default, tuple) else json.dumps(field.default)
    terms = f"Allowed: {allowed(key)}." + ("" if key == "root" else f" Default: {default}.")
    return f"\n{_comment(field.description or '')}{_comment(terms)}{_line(key, field)}"


def _line(key: str, field: FieldInfo) -> str:
    name = key.rpartition(".")[2]
    if key == "root":
        return f"root = {json.dumps(EXAMPLE_ROOT)}\n"
    line = f"{name} = {json.dumps(field.default)}"
    return f"#{line}\n" if len(line) < _WIDTH else "".join(_long_list(name, field.default))


def _long_list(name: str, values: tuple[str, ...]) -> Iterator[str]:
    items = ", ".join(map(json.dumps, values)) + ","
    yield f"#{name} = [\n"
    for line in textwrap.wrap(items, _WIDTH - 5, break_long_words=False, break_on_hyphens=False):
        yield f"#    {line}\n"
    yield "#]\n"


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_example())
