"""The source keeps its shape: arrows between modules, who may do what, and what is explained."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from xray_watcher.ledger.states import State

SOURCE = Path(__file__).parents[1] / "src" / "xray_watcher"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
    for path in sorted(SOURCE.rglob("*.py"))
}
PURE = [name for name in MODULES if name.startswith("core.")]

# Who stands above whom; a module imports only from its own row or from rows below it.
ROWS = (
    ("__main__", "manual"),
    ("cli.main",),
    ("cli",),
    ("cli.options",),
    ("web",),
    ("commands",),
    ("service.assembly",),
    ("service.upkeep",),
    ("service.daemon",),
    ("service.folders", "service.network"),
    ("pipeline", "restoring"),
    ("sealing",),
    ("effects", "notify", "retention"),
    ("reports", "model", "intake", "logs", "phantoms"),
    ("ledger.outbox", "ledger.removals", "ledger.restored", "ledger.used_indexes"),
    ("ledger.ledger",),
    ("ledger.api_queries", "ledger.page_queries"),
    ("ledger.reader",),
    ("ledger.days", "ledger.effect"),
    ("ledger.queries", "records"),
    ("ledger.schema",),
    ("ledger.connection",),
    ("ledger.refusals", "ledger.rows", "ledger.states"),
    ("system.disks",),
    ("service.supervisor", "service.heartbeat", "system.lock"),
    ("service.chores", "service.reports", "service.renewing"),
    ("system.sd_notify",),
    ("system.signals",),
    ("config.example",),
    ("config.loading",),
    ("config.checks",),
    ("config.sources",),
    ("config.keys",),
    ("config.settings",),
    ("config.folders",),
    ("config.care",),
    ("config.base",),
    ("imaging",),
    ("log", "system"),
    ("core",),
    ("errors",),
    ("__init__", "config", "ledger", "service"),
)
RENAMING = {"rename", "renames", "replace", "link", "symlink", "renameat2", "move"}
FORBIDDEN_IN_CORE = {"open", "print", "input", "exec", "eval", "__import__"}
OUTSIDE_CORE = {"os", "io", "time", "pathlib", "socket", "subprocess", "sqlite3", "shutil"}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[str]:
    """The modules that a module imports, wherever in its text."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} uses a relative import"
            assert node.module is not None
            yield node.module


def row_of(name: str) -> int:
    """The row that names the module, or else its package."""
    for wanted in (name.removesuffix(".__init__"), name.split(".", maxsplit=1)[0]):
        for number, row in enumerate(ROWS):
            if wanted in row:
                return number
    raise AssertionError(f"{name} stands in no row: say where it belongs")


@pytest.mark.parametrize("name", MODULES)
def test_arrows_between_modules_point_one_way(name: str) -> None:
    for imported in imports(name):
        if imported.startswith("xray_watcher."):
            other = imported.removeprefix("xray_watcher.")
            assert row_of(other) >= row_of(name), f"{name} imports {other}, which stands above it"


@pytest.mark.parametrize("name", MODULES)
def test_no_two_modules_import_each_other(name: str) -> None:
    ours = f"xray_watcher.{name}"
    for imported in imports(name):
        other = imported.removeprefix("xray_watcher.")
        if other in MODULES and other != name:
            assert ours not in set(imports(other)), f"{name} and {other} import each other"


@pytest.mark.parametrize("name", PURE)
def test_the_core_decides_and_touches_nothing(name: str) -> None:
    for imported in imports(name):
        package = imported.split(".")[0]
        allowed = imported.startswith("xray_watcher.core") or package in sys.stdlib_module_names
        assert allowed, f"{name} imports {imported}"
        assert package not in OUTSIDE_CORE or imported == "os.path", f"{name} imports {imported}"
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_IN_CORE
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "today", "utcnow"}, f"{name} asks for the time itself"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "system.files"])
def test_one_module_alone_renames_and_links_files(name: str) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute) and node.attr in RENAMING:
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            assert owner not in {"os", "shutil", "Path", "_libc"}, f"{name}: {owner}.{node.attr}"


EXECUTING = {"execute", "executemany", "executescript", "execute_many", "cursor", "connection"}
SQL = re.compile(
    r"\b(SELECT .+ FROM|INSERT .*INTO|UPDATE \w+ SET|DELETE FROM|PRAGMA \w|BEGIN IMMEDIATE)\b"
    r"|\bstate (=|IN|<>) |\bWHERE \w+",
    re.DOTALL,
)
STATES = {str(state) for state in State}


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith("ledger")])
def test_only_the_ledger_package_executes_sql(name: str) -> None:
    assert "sqlite3" not in set(imports(name))
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"db", "sqlite"}, f"{name}: .{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in EXECUTING, f"{name}: .{node.func.attr}()"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not SQL.search(node.value), f"{name}: {node.value!r}"


@pytest.mark.parametrize("name", [n for n in MODULES if n != "ledger.states"])
def test_the_states_of_an_image_stand_in_one_place(name: str) -> None:
    """But in the steps of the schema, which never change, and where the docstrings explain them."""
    explained = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    }
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in explained or (name == "ledger.schema" and "CREATE" in node.value):
                continue
            assert not STATES.intersection(re.findall(r"\w+", node.value)), f"{name}: {node.value}"


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith("model")])
def test_only_the_model_package_imports_torch(name: str) -> None:
    packages = {imported.split(".")[0] for imported in imports(name)}
    assert packages.isdisjoint({"torch", "torchvision", "torchxrayvision"})


def test_nothing_but_loading_a_network_imports_torch() -> None:
    code = (
        "import sys, xray_watcher.service.assembly, xray_watcher.model.weights\n"
        "from xray_watcher.commands import demo, predict, status\n"
        "sys.exit('torch' in sys.modules or 'torchxrayvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pictures_are_decoded_in_children_alone() -> None:
    """What a sender's bytes can reach is not even imported in the service or the web process."""
    code = (
        "import sys, xray_watcher.service.assembly, xray_watcher.web.app\n"
        "sys.exit(not {'PIL', 'kornia_rs', 'simplejpeg'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_imports_neither_settings_nor_numbers() -> None:
    code = (
        "import sys, xray_watcher.cli.main\n"
        "sys.exit(not {'pydantic', 'numpy'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_explained(name: str) -> None:
    assert ast.get_docstring(tree(name)), f"{name} does not say what it is for"
    for called, node in public(tree(name)):
        if called.rpartition(".")[0].startswith("_"):
            continue
        assert ast.get_docstring(node), f"{name}.{called} has no docstring"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short_enough_to_find_one_s_way(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 500


def test_what_is_imported_is_declared_and_pinned() -> None:
    """What comes along with another package may be gone with its next version."""
    home = SOURCE.parents[1]
    project = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["web"], *extras["onnx"]]
    declared = {plain(re.split(r"[<>=]", one, maxsplit=1)[0]) for one in wanted}
    pins = (home / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line.partition("==")[0]) for line in pins if "==" in line}
    roots = {imported.partition(".")[0] for name in MODULES for imported in imports(name)}
    roots -= {*sys.stdlib_module_names, "xray_watcher"}
    found = {root: plain(packages_distributions()[root][0]) for root in roots}
    assert set(found.values()) <= declared
    assert declared <= pinned


def plain(distribution: str) -> str:
    """A distribution's name as all spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
