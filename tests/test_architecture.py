"""The source keeps its shape: arrows between modules, who may do what, and what is explained."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from statistics import median

from xray_watcher.ledger.states import State

HOME = Path(__file__).parents[1]
SOURCE = HOME / "src" / "xray_watcher"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
    for path in sorted(SOURCE.rglob("*.py"))
}
PURE = [name for name in MODULES if name.startswith("core.")]

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


def test_arrows_between_the_rooms_are_as_the_contracts_have_them() -> None:
    """`[tool.importlinter]` in pyproject.toml has the contracts."""
    linter = Path(sys.executable).with_name("lint-imports")
    asked = [linter, "--no-cache", "pyproject.toml"]
    ran = subprocess.run(asked, cwd=HOME, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_the_core_decides_and_touches_nothing() -> None:
    for name in PURE:
        for imported in imports(name):
            package = imported.split(".")[0]
            allowed = imported.startswith("xray_watcher.core") or package in sys.stdlib_module_names
            assert allowed, f"{name} imports {imported}"
            assert package not in OUTSIDE_CORE or imported == "os.path", (
                f"{name} imports {imported}"
            )
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN_IN_CORE
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"now", "today", "utcnow"}, (
                    f"{name} asks for the time itself"
                )


def test_one_module_alone_renames_and_links_files() -> None:
    for name in MODULES.keys() - {"system.files"}:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and node.attr in RENAMING:
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                assert owner not in {"os", "shutil", "Path", "_libc"}, (
                    f"{name}: {owner}.{node.attr}"
                )


EXECUTING = {"execute", "executemany", "executescript", "execute_many", "cursor", "connection"}
SQL = re.compile(
    r"\b(SELECT .+ FROM|INSERT .*INTO|UPDATE \w+ SET|DELETE FROM|PRAGMA \w|BEGIN IMMEDIATE)\b"
    r"|\bstate (=|IN|<>) |\bWHERE \w+",
    re.DOTALL,
)
STATES = {str(state) for state in State}


def test_only_the_ledger_package_executes_sql() -> None:
    for name in (each for each in MODULES if not each.startswith("ledger.")):
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"db", "sqlite"}, f"{name}: .{node.attr}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in EXECUTING, f"{name}: .{node.func.attr}()"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not SQL.search(node.value), f"{name}: {node.value!r}"


def test_the_states_of_an_image_stand_in_one_place() -> None:
    """But in the steps of the schema, which never change, and where the docstrings explain them."""
    for name in MODULES.keys() - {"ledger.states"}:
        explained = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(tree(name))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        }
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if node.value in explained or (name == "ledger.schema" and "CREATE" in node.value):
                    continue
                assert not STATES.intersection(re.findall(r"\w+", node.value)), (
                    f"{name}: {node.value}"
                )


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


def test_everything_public_is_explained() -> None:
    for name in MODULES:
        assert ast.get_docstring(tree(name)), f"{name} does not say what it is for"
        for called, node in public(tree(name)):
            if called.rpartition(".")[0].startswith("_"):
                continue
            assert ast.get_docstring(node), f"{name}.{called} has no docstring"  # type: ignore[arg-type]


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a body without its docstring."""
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return (first[-1].end_lineno or 0) - first[0].lineno + 1 if first else 0


def test_modules_and_functions_are_short_enough_to_find_one_s_way() -> None:
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()
    }
    assert [name for name, count in lines.items() if count > 450] == []
    assert median(lines.values()) <= 130
    long = {
        f"{name}.{each.name}"
        for name in MODULES
        for each in functions(name)
        if body_lines(each) > 40
    }
    assert long <= {"service.assembly.assemble"}, "the composition root alone names every part"


def test_no_constructor_has_more_arguments_than_a_person_can_hold() -> None:
    crowded = {
        name
        for name in MODULES
        for each in functions(name)
        if each.name == "__init__" and len(each.args.args) + len(each.args.kwonlyargs) - 1 > 10
    }
    assert crowded == set()


def test_the_first_level_of_the_source_can_be_read_at_a_glance() -> None:
    own = {name for name in MODULES if "." not in name} - {"__init__", "__main__"}
    assert len(own) <= 4, own


def test_each_code_of_a_log_event_stands_in_one_place() -> None:
    """Alerts in Loki or Splunk go by the code; the sentence beside it may change."""
    codes = Counter(
        keyword.value.value
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in {"info", "warning", "error"}
        for keyword in node.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    )
    assert len(codes) >= 26
    assert [code for code, count in codes.items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z0-9_]+", str(code)) for code in codes)


def test_what_is_imported_is_declared_and_pinned() -> None:
    """What comes along with another package may be gone with its next version."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["web"], *extras["onnx"]]
    declared = {plain(re.split(r"[<>=]", one, maxsplit=1)[0]) for one in wanted}
    pins = (HOME / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line.partition("==")[0]) for line in pins if "==" in line}
    roots = {imported.partition(".")[0] for name in MODULES for imported in imports(name)}
    roots -= {*sys.stdlib_module_names, "xray_watcher"}
    distributions = packages_distributions()
    found = {root: plain(distributions[root][0]) for root in roots}
    assert set(found.values()) <= declared
    assert declared <= pinned


def plain(distribution: str) -> str:
    """A distribution's name as all spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
