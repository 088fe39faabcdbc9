"""What the documents say is so: commands, keys, columns, codes, components, events, links."""

from __future__ import annotations

import ast
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import settings_page

from service import Service
from xray_watcher import errors
from xray_watcher.cli import main as cli
from xray_watcher.cli import options as cli_options
from xray_watcher.config.keys import FIELDS
from xray_watcher.core.image_record import ImageRecord, ModelFields, Timings
from xray_watcher.core.retries import COMPONENTS, FILES
from xray_watcher.core.values import REJECTIONS, Rejection
from xray_watcher.phantom.files import write_phantoms
from xray_watcher.records import CSV_COLUMNS, CSV_PARTS

HOME = Path(__file__).parents[1]
SOURCE = HOME / "src" / "xray_watcher"
PAGES = [
    *(HOME / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((HOME / "docs").rglob("*.md")),
]


def page(name: str) -> str:
    return (HOME / "docs" / name).read_text(encoding="utf-8")


def first_cells(text: str, heading: str) -> list[str]:
    """The code words in the first cells of the table below a heading."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and "---" not in line]
    return [word for row in rows[1:] for word in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def commands(group: click.Group, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name


def literals(call_of: str) -> set[str]:
    """First text argument of every call of a function or method of that name in the source."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            called = ast.unparse(node.func)
            first = node.args[0]
            is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
            if is_text and re.fullmatch(call_of, called):
                found.add(first.value)  # type: ignore[attr-defined]
    return found


def test_every_column_is_explained_and_no_other() -> None:
    assert first_cells(page("csv.md"), "Columns") == list(CSV_COLUMNS)


def said(column: str) -> str:
    """What the record says of the field, or the part of one, that a column holds."""
    kind: Any = ImageRecord
    for name in CSV_PARTS.get(column, column).split("."):
        (field,) = [each for each in fields(kind) if each.name == name]
        kind = {"rejected": Rejection, "model": ModelFields, "timings_ms": Timings}.get(name)
    return str(field.metadata["description"])


def test_what_is_said_of_a_column_begins_as_the_record_says_it() -> None:
    table = page("csv.md").split("\n## Columns\n", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert {column: rows[column][: len(said(column))] for column in CSV_COLUMNS} == {
        column: said(column) for column in CSV_COLUMNS
    }


def test_every_reject_code_is_explained_and_no_other() -> None:
    assert first_cells(page("csv.md"), "Reject codes") == list(REJECTIONS)


def test_the_reference_of_the_settings_is_made_from_them() -> None:
    """Else: `make manual`."""
    assert page("settings.md") == settings_page.page()


def test_every_degraded_component_says_what_to_do() -> None:
    named = literals(r"Unavailable|_?unavailable|self\._attempt") | {"hangs", "starting"}
    named |= {FILES, *COMPONENTS.values()}
    named -= {"work"}  # a step, whose troubles are told by their own causes
    named |= {f"notify-{kind}" for kind in ("webhook", "smtp", "command")}
    components = {component for component in named if " " not in component}
    explained = first_cells(page("components.md"), "Every degraded component, and what to do")
    assert sorted(explained) == sorted(components)


def test_every_exit_code_of_an_error_is_explained() -> None:
    codes = {
        str(kind.exit_code)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.XrayWatcherError)
    }
    codes |= {str(code) for name, code in vars(cli_options).items() if name.startswith("EXIT_")}
    table = page("exit-codes.md").split("## Exit codes", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE)) == codes | {"0"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(HOME)))
def test_commands_and_options_that_are_named_exist(path: Path) -> None:
    known = set(commands(cli.cli))
    # Its user has the same name, as in `sudo -u xray-watcher xray-watcher status`.
    for words in re.findall(r"(?<!-u )(?<!\()xray-watcher ((?:[a-z-]+ ?){1,2})", _code(path)):
        first, *rest = words.split()
        is_known = first in known or f"{first} {rest[0] if rest else ''}" in known
        is_group = any(name.startswith(f"{first} ") for name in known)
        assert is_known or is_group, f"{path.name} names `xray-watcher {words}`"
    options = {
        option
        for command in _every(cli.cli)
        for parameter in command.params
        for option in parameter.opts
    }
    for line in re.findall(r"xray-watcher [^`\n]*", _code(path)):
        for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", line):
            assert option in options | {"--help", "--version"}, f"{path.name}: {line}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(HOME)))
def test_settings_that_are_named_exist(path: Path) -> None:
    keys = FIELDS.keys()
    sections = {key.partition(".")[0] for key in keys if "." in key}
    for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", path.read_text()):
        if section in sections:
            assert f"{section}.{key}" in keys, f"{path.name} names {section}.{key}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(HOME)))
def test_links_lead_to_files_that_are_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(HOME)))
def test_links_to_a_heading_find_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        there = path.parent / target if target else path
        assert anchor in anchors(there), f"{path.name} links to {target}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(HOME)))
def test_files_of_the_project_that_are_named_exist(path: Path) -> None:
    folders = {home: {each.name for each in home.iterdir()} for home in (HOME, SOURCE)}
    # In extending.md an example begins with the name of a module that is still to be written.
    for name in re.findall(
        r"(?<!^# )(?<![\w/~.<>-])[a-z_]+/[\w/.-]+\.(?:py|sh|c|conf|ya?ml|json)\b",
        _code(path),
        re.MULTILINE,
    ):
        homes = [home for home, names in folders.items() if name.partition("/")[0] in names]
        assert not homes or any((home / name).exists() for home in homes), name


def test_the_map_has_the_rooms_in_the_order_of_their_contract() -> None:
    tables = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (layers,) = [
        contract["layers"]
        for contract in tables["importlinter"]["contracts"]
        if contract.get("containers") == ["xray_watcher"]
    ]
    table = page("architecture.md").split("\n## Where things lie\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (`[^|]*?) \|", table, re.MULTILINE)
    drawn = [sorted(re.findall(r"`(\w+)[^`]*`", row)) for row in rows]
    assert drawn == [sorted(layer.split(" | ")) for layer in layers]


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [HOME / "README.md"]
    while waiting:
        here = waiting.pop()
        reached.add(here)
        links = re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", here.read_text(encoding="utf-8"))
        there = {(here.parent / link).resolve() for link in links}
        waiting += there - reached
    assert set(PAGES) <= reached


def test_the_pages_can_be_read_once() -> None:
    """Many readers have English as a second language."""
    words = [len(sentence.split()) for path in PAGES for sentence in sentences(path)]
    assert sum(words) / len(words) <= 13
    assert sum(count > 30 for count in words) / len(words) <= 0.03


PRIVATE = (
    *("in hand", "in vain", "for good", "out of order", "set aside", "told", "mend", "mended"),
    *("what is left of", "to be had", "a trouble", "second door", "stranger"),
)
"""What only those who wrote the program would say so."""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(HOME)))
def test_no_page_has_a_private_phrase(path: Path) -> None:
    text = " ".join(prose(path).split())
    assert [phrase for phrase in PRIVATE if re.search(rf"\b{phrase}\b", text)] == []


def prose(path: Path) -> str:
    """A page without its code."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"`[^`]*`", "code", text)


def sentences(path: Path) -> Iterator[str]:
    """What stands on a page beside code, tables and headings; of three words or more."""
    lines = [line for line in prose(path).splitlines() if not re.match(r"\s*[|#<!]", line)]
    for part in re.split(r"(?<=[.!?:])\s+|\n\s*\n|\n\s*[-*]\s|\n\s*\d+\.\s", "\n".join(lines)):
        if len(part.split()) >= 3:
            yield part


def anchors(path: Path) -> set[str]:
    """What a forge calls the headings of a page."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_example_for_pandas_runs_on_a_real_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(tmp_path / "root")
    write_phantoms(str(service.inbox), 6, 1, lambda: None)
    shutil.copy(service.inbox / "drawn.csv", service.inbox / "notes.png")
    pictures = sorted(service.inbox.glob("*.png"))
    wards = ("NA", "0012", "1E5", "null")
    for ward, picture in zip(wards, pictures, strict=False):
        (service.inbox / ward).mkdir()
        picture.rename(service.inbox / ward / picture.name)
    service.start("--once", "--weights", "phantom")
    assert service.ended() == 3
    monkeypatch.chdir(service.root)
    blocks = re.findall(r"```python\n(.*?)```", page("csv.md"), re.DOTALL)
    (example,) = [block for block in blocks if "import pandas" in block]
    scope: dict[str, Any] = {}
    exec(compile(example, "csv.md", "exec"), scope)
    assert set(scope["results"]["source"]) == {"", *wards}
    assert scope["results"]["top_probability"].dtype == "float64"
    shown = capsys.readouterr().out
    assert "High" in shown
    assert "wrong_format" in shown


def _code(path: Path) -> str:
    """Everything in code type on a page."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([*blocks, *inline])


def _every(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from _every(command)
