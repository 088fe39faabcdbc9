"""Writes the reference of the settings, docs/settings.md, from the settings themselves.

    python deploy/settings_page.py > docs/settings.md        # part of `make manual`

The sentence, the bounds and the default of each key are those of `xray_watcher.config`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from xray_watcher.config.keys import FIELDS, TABLES, THRESHOLDS, allowed

_HEAD = """\
# Settings

The configuration is a TOML file. A value counts in this order: a flag of the command line, the
environment, the file, the default. The file is the first of these that is there:

1. the one that `--config` names;
2. the one that `$XRAY_WATCHER_CONFIG` names;
3. `~/.config/xray-watcher/config.toml`;
4. `/etc/xray-watcher/config.toml`.

In the environment `XRAY_WATCHER_BATCH__MAX_SIZE=8` sets `batch.max_size`. Lists and tables are JSON
there. `xray-watcher check-config` prints what is in force and where it is from. It names every
mistake at once. [The example](../config/xray-watcher.toml) has every key.

`make manual` writes this page from the settings of the program. `man xray-watcher.toml` says the
same.
"""
_COLUMNS = "| key | what it does | allowed | default |\n|---|---|---|---|\n"


def page() -> str:
    """The whole page: a table of keys for each table of the file, in the file's order."""
    tables = [key for key in FIELDS if key in TABLES]
    return "".join([_HEAD, *_section("", "At the top of the file"), *map(_table, tables)])


def _table(key: str) -> str:
    sentence = FIELDS[key].description or ""
    terms = f" Allowed: {allowed(key)}." if key == THRESHOLDS else ""
    return "".join(_section(key, f"[{key}]", f"{sentence}{terms}"))


def _section(table: str, heading: str, sentence: str = "") -> Iterator[str]:
    yield f"\n## {heading}\n"
    if sentence:
        yield f"\n{sentence}\n"
    rows = [_row(key, FIELDS[key]) for key in FIELDS if _is_in(key, table)]
    if rows:
        yield f"\n{_COLUMNS}" + "".join(rows)


def _is_in(key: str, table: str) -> bool:
    return key not in TABLES and key.rpartition(".")[0] == table


def _row(key: str, field: FieldInfo) -> str:
    default = "required" if key == "root" else f"`{_toml(field.default)}`"
    cells = (f"`{key}`", field.description or "", allowed(key), default)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _toml(value: object) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    sys.stdout.write(page())
