"""A page that promises: each sentence, and the test that holds it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


def check_held(page: Path, sentence: str, test: str, tests: Path) -> None:
    """Raise AssertionError unless the sentence stands on the page and its test exists.

    Args:
        page: the document.
        sentence: its beginning or its middle, blanks and ends of lines being one.
        test: `MODULE::NAME`.
        tests: the folder that MODULE is in.
    """
    assert sentence in " ".join(page.read_text(encoding="utf-8").split())
    module, name = test.split("::")
    assert name in _names_in(tests / module)


@cache
def _names_in(module: Path) -> frozenset[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
