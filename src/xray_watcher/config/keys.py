"""Every key of the settings by its dotted name: what it is called, what it may hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xray_watcher.config.settings import Settings

FOLDERS: Mapping[str, str] = {
    "intake.inbox": "inbox",
    "intake.classified": "classified",
    "intake.rejected": "rejected",
    "intake.duplicates_folder": "duplicates",
    "intake.logs": "logs",
    "state_dir": "state",
}
"""The keys that place a folder, with the name of that folder in `Folders`."""

NOTIFY_FILES = (
    *("notify.webhook.url_file", "notify.webhook.secret_file", "notify.webhook.ca_file"),
    *("notify.smtp.password_file", "notify.smtp.ca_file"),
)
"""The keys that name a file with something secret or trusted in it."""

THRESHOLDS = "risk.thresholds"

_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_KINDS: Mapping[Any, str] = {int: "a whole number", float: "a number", str: "a text"}


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        field.description = " ".join((field.description or "").split())  # it is a docstring
        yield prefix + name, field
        if section := table_model(field):
            yield from _walk(section, f"{prefix}{name}.")


def table_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a table of its own, else None."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


FIELDS: Mapping[str, FieldInfo] = dict(_walk(Settings))
"""Every key and every table, in the order of the file."""

TABLES = frozenset(key for key, field in FIELDS.items() if table_model(field)) | {THRESHOLDS}
"""The keys that are tables."""

KEYS = tuple(key for key, field in FIELDS.items() if not table_model(field))
"""The keys that hold a value; `risk.thresholds` is one of them."""


def is_known(key: str) -> bool:
    """Whether a value may stand under this key."""
    return key in KEYS or key.startswith(THRESHOLDS + ".")


def key_type(key: str) -> object:
    """What a key holds: int, float, str, Literal, tuple, Mapping, or the class of a table."""
    annotation = FIELDS[key].annotation
    return get_origin(annotation) or annotation


def key_unit(key: str) -> str:
    """The unit of a key's value, or nothing."""
    return _extra(FIELDS[key], "unit")


def allowed(key: str) -> str:
    """What a key may hold, in words, with its bounds and unit."""
    field = FIELDS[THRESHOLDS if key.startswith(THRESHOLDS) else key]
    return _extra(field, "allowed") or _allowed_by_type(field)


def may_be_secret(key: str) -> bool:
    """Whether a key's value may be a secret, so that no complaint repeats it."""
    return bool(_extra(FIELDS[THRESHOLDS if key.startswith(THRESHOLDS) else key], "is_secret"))


def neighbours(key: str) -> str:
    """What may stand in the table where this unknown key stands."""
    table, _, _ = key.rpartition(".")
    names = [_shown(name, table) for name in FIELDS if name.rpartition(".")[0] == table]
    return f"allowed {f'in [{table}]' if table else 'here'}: {', '.join(names)}"


def similar(key: str) -> str:
    """The known key that was probably meant, or nothing: same name elsewhere, else most alike."""
    last = key.rpartition(".")[2]
    namesakes = [name for name in FIELDS if name.rpartition(".")[2] == last]
    close = get_close_matches(key, FIELDS, n=1, cutoff=0.7)
    return next(iter([*namesakes, *close]), "")


def _shown(name: str, table: str) -> str:
    last = name.removeprefix(f"{table}.")
    return f"[{name}]" if name in TABLES else last


def _extra(field: FieldInfo, name: str) -> str:
    extra = field.json_schema_extra
    return str(extra.get(name) or "") if isinstance(extra, dict) else ""


def _allowed_by_type(field: FieldInfo) -> str:
    kind = get_origin(field.annotation) or field.annotation
    if kind is Literal:
        return ", ".join(f'"{choice}"' for choice in get_args(field.annotation))
    if kind is tuple:
        return f"a list of texts as {json.dumps(field.default[:2])}"
    unit = _extra(field, "unit")
    words = f"{_KINDS[kind]} {', '.join(_bounds(field))}".rstrip()
    return f"{words} ({unit})" if unit else words


def _bounds(field: FieldInfo) -> Iterator[str]:
    for rule in field.metadata:
        for name, word in _BOUNDS.items():
            if hasattr(rule, name):
                yield f"{word} {getattr(rule, name)}"
