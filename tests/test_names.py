"""The names of the source: one word for one thing, and the field's own words."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "xray_watcher"
LOG_EVENTS = Path(__file__).parent.parent / "docs" / "log-events.md"

WORDS = {
    r"tell|tells|telling|told": "notify, report, log, say",
    r"findings?": "outcome, problem (in radiology a finding is what is seen on the film)",
    r"aftermath": "effects",
    r"doors?|doorman": "source, authentication",
    r"company": "shared lock",
    r"bootstrap_care|live_parts": "the parts of assembly",
    r"seal|seals|sealed|sealer|sealing": "decide",
    r"bells?|ringing": "waker, wake",
    r"troubles?": "problem",
    r"strangers?": "unknown file, foreign data",
    r"mend|mends|mended|mending": "repair",
    r"in hand": "claimed, open, present",
    r"in vain": "failed",
    r"for good": "for ever, at last",
    r"out of order": "degraded",
    r"set aside|sets aside|setting aside": "rejected",
    r"what is left of": "the rest of",
}
"""The words that are not used, as patterns of whole words, and those in their place."""

EXCEPTIONS = {
    "no_finding": "a flag in records, and part of a configuration key",
    "no finding": "the same, in words",
    "has_finding": "a condition at its operating point: what radiologists call so",
    "a finding": "the same, in words",
}
"""Texts in which a word may stand, each with its reason."""

FORMAT_KEYS = {
    "web/models.py": "troubles",
    "web/api.py": "troubles",
}
"""Modules in which a word stands that is a key of the API's answers, which stay as they are."""

CLASS_NAMES = {"Audience", "Doorman", "Gate", "Look", "Place", "Sealer"}
"""Names that no class has any more."""

MODULE_NAMES = {
    *("aftermath", "below", "bootstrap_care", "care", "company", "doors", "findings"),
    *("live_parts", "logs", "places"),
}
"""Names that no module has any more."""

_WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(WORDS)})(?![a-z])")
_LEVELS = ("debug", "info", "warning", "error", "critical", "exception")


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def docstrings(tree: ast.Module) -> set[tuple[int, int]]:
    """Where texts stand that are statements of their own."""
    return {
        (node.value.lineno, node.value.col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Each identifier, comment and docstring with its line."""
    documented = docstrings(ast.parse(source))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.type == tokenize.STRING and token.start in documented
        if is_docstring or token.type in (tokenize.NAME, tokenize.COMMENT):
            yield token.start[0], token.string


def unwanted(text: str) -> list[str]:
    """The words of the table in a text; parts of a name are words too."""
    if text.isidentifier():
        text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)
    text = " ".join(text.lower().split())
    for exception in EXCEPTIONS:
        text = text.replace(exception, "")
    return _WORD.findall(text)


def log_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            logger = ast.unparse(node.func.value)
            if node.func.attr in _LEVELS and logger in ("_log", "structlog.get_logger()"):
                yield node


def log_events() -> Iterator[tuple[str, str | None, str]]:
    """Where a line is logged, its code if that is a literal, and its sentence."""
    for path in files():
        for call in log_calls(ast.parse(path.read_text("utf-8"))):
            given = {key.arg: key.value for key in call.keywords}.get("code")
            code = given.value if isinstance(given, ast.Constant) else None
            sentence = ast.literal_eval(call.args[0])
            yield f"{path.relative_to(SOURCE)}:{call.lineno}", code, sentence


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_word_of_the_private_dialect_stands_in_a_name_comment_or_docstring(path: Path) -> None:
    found = [
        f"{path}:{line}: {word}"
        for line, text in texts(path.read_text("utf-8"))
        for word in unwanted(text)
        if word != FORMAT_KEYS.get(str(path.relative_to(SOURCE)))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("is_told", ["told"]),
        ("DoormanOfTheWeb", ["doorman"]),
        ("# an image that is set\n# aside", []),
        ('"""Who is set\n    aside."""', ["set aside"]),
        ("no_finding_level", []),
        ("findings_of", ["findings"]),
        ("# spring, doorway, indoors, ending, gold", []),
    ],
)
def test_words_are_found_whole_in_names_and_across_lines(text: str, words: list[str]) -> None:
    assert unwanted(text) == words


def test_no_two_classes_share_a_name_and_none_has_a_former_one() -> None:
    named: dict[str, list[str]] = defaultdict(list)
    for path in files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                named[node.name].append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert {name: where for name, where in named.items() if len(where) > 1} == {}
    assert CLASS_NAMES & named.keys() == set()


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = {path.stem for path in files()} | {path.name for path in SOURCE.rglob("*")}
    assert MODULE_NAMES & names == set()


def test_every_log_call_has_a_literal_code_of_its_own() -> None:
    events = list(log_events())
    assert [(where, sentence) for where, code, sentence in events if code is None] == []
    codes = Counter(code for _, code, _ in events)
    assert [code for code, count in codes.items() if count > 1] == []
    assert [code for code in codes if not re.fullmatch(r"[a-z][a-z0-9_]*", code or "")] == []


def test_every_log_event_stands_in_the_documentation_with_its_sentence_and_no_other() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+?) \| ([^|]+?) \|$", LOG_EVENTS.read_text("utf-8"), re.MULTILINE
    )
    documented = {(code, sentence) for code, sentence, _ in rows}
    assert documented == {(code, sentence) for _, code, sentence in log_events()}
    assert [code for code, _, meaning in rows if len(meaning) < 10] == []
