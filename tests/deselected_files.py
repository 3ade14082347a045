"""Files whose tests ``-m`` deselects, whatever they are, are not imported.

A file's text says which marks its tests have for certain (those of its ``pytestmark``) and which
they may have: a mark is written as ``mark.name`` in the file, in a module of this folder that it
imports, or in a ``conftest.py`` above it. A file is left out if the expression is false for every
set of marks between the two. That tests have no other marks is checked for all that are collected.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

TESTS = Path(__file__).parent
#: Those of ``pyproject.toml``. Plugins add marks of their own to tests; these they do not.
OURS = frozenset(
    {"flink", "service", "alone", "processes", "slow", "gpu", "drill", "full", "browser"}
)
WRITTEN = re.compile(r"\bmark\s*\.\s*(\w+)")
IMPORTED = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FileMarks:
    """The marks of OURS that every test of a file has, and those that its tests may have."""

    certain: frozenset[str]
    possible: frozenset[str]


@pytest.hookimpl(trylast=True)
def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    expression = config.option.markexpr
    named = any(str(collection_path).endswith(arg.split("::")[0]) for arg in config.args)
    if not expression or named or not collection_path.match("test_*.py"):
        return None
    return is_deselected(expression, file_marks(collection_path)) or None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    check_marks(items)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    check_marks(items)


def check_marks(items: Iterable[pytest.Item]) -> None:
    """Refuse a run in which a test has marks that the text of its file does not say."""
    for item in items:
        found = OURS & {mark.name for mark in item.iter_markers()}
        said = file_marks(item.path)
        if not said.certain <= found <= said.possible:
            raise pytest.UsageError(
                f"{item.nodeid} has the marks {sorted(found)}; by its text it has {said}. "
                f"Write them as `mark.name`, as {__name__}.py says"
            )


@cache
def is_deselected(expression: str, marks: FileMarks) -> bool:
    """Whether the expression is false for every test with such marks, whatever else it has."""
    if re.search(r"\w\(", expression):
        return False  # asks for an argument of a mark
    compiled = Expression.compile(expression)
    known = {name: name in marks.certain for name in OURS - (marks.possible - marks.certain)}
    unknown = sorted(compiled.idents() - known.keys())
    return not any(
        compiled.evaluate(_matcher(known | dict(zip(unknown, values, strict=True))))
        for values in product((False, True), repeat=len(unknown))
    )


def _matcher(marks: Mapping[str, bool]) -> Callable[..., bool]:
    return lambda name, /, **_: marks[name]


@cache
def file_marks(path: Path) -> FileMarks:
    """The marks of a test file, by its text and that of what it imports from here."""
    certain = frozenset(certain_marks(path.read_text())) & OURS
    sources = {path, *(folder / "conftest.py" for folder in path.parents)}
    sources |= {module for source in sources for module in _imported(source)}
    written = frozenset(name for source in sources for name in _text(source).marks)
    return FileMarks(certain, certain | written & OURS)


def certain_marks(text: str) -> Iterator[str]:
    """The marks in the one ``pytestmark`` of a file's own level; none if it has several."""
    if text.count("pytestmark") != 1:
        return
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=value):
                for one in value.elts if isinstance(value, ast.List) else [value]:
                    match one.func if isinstance(one, ast.Call) else one:
                        case ast.Attribute(ast.Attribute(ast.Name("pytest"), "mark"), name):
                            yield name


@dataclass(frozen=True, slots=True)
class _Text:
    marks: frozenset[str]
    imports: frozenset[Path]


@cache
def _text(path: Path) -> _Text:
    """The marks that are written in a file, and the modules of this folder that it imports."""
    text = path.read_text() if path.exists() else ""
    modules = (TESTS / f"{name}.py" for name in IMPORTED.findall(text))
    return _Text(frozenset(WRITTEN.findall(text)), frozenset(m for m in modules if m.exists()))


@cache
def _imported(path: Path) -> frozenset[Path]:
    """The modules of this folder that a file imports, and those that they import."""
    found, waiting = set[Path](), [path]
    while waiting:
        new = _text(waiting.pop()).imports - found
        found |= new
        waiting += new
    return frozenset(found)
