"""The lines of a YAML document: an error of a pipeline names the line of the value that is wrong.

>>> document = Document.read("steps:\\n- read: documents\\n  from: {kafka: {topic: 3}}\\n")
>>> with document.lines_of_errors(), within("steps", 0, "from"):
...     raise PipelineError("step 'documents': topic must be text, got 3")
Traceback (most recent call last):
sage_flink.common.errors.PipelineError: line 3: step 'documents': topic must be text, got 3
"""

import re
from collections.abc import Container, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from sage_flink.common.errors import PipelineError


class _PlacedError(PipelineError):
    """An error, and the keys and indices that lead to the wrong value."""

    def __init__(self, message: str, path: tuple[Hashable, ...]) -> None:
        super().__init__(message)
        self.path = path


@contextmanager
def within(*path: Hashable) -> Iterator[None]:
    """Errors in the block belong to the value at ``path`` inside that of the surrounding block."""
    try:
        yield
    except PipelineError as error:
        inner = error.path if isinstance(error, _PlacedError) else ()
        raise _PlacedError(str(error), (*path, *inner)) from error.__cause__


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML document: its value, the tree from which it was made, and the name of its file."""

    value: Any
    root: yaml.Node | None
    file: str = ""

    @staticmethod
    def read(text: str, file: str = "") -> "Document":
        """The document in ``text``; errors name ``file``, where there is one.

        Raises:
            PipelineError: it is not YAML, or has a key twice; the message begins with the line.
        """
        try:
            root = yaml.compose(text, yaml.SafeLoader)
            if second := _second_key(root, set()):
                name, line = second.value, second.start_mark.line + 1
                flaw = f"pipeline: the key {name!r} is there twice"
                raise PipelineError(_with_place(flaw, file, line))
            return Document(yaml.safe_load(text), root, file)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = " ".join(str(getattr(error, "problem", None) or error).split())
            flaw = f"pipeline: not YAML: {problem}"
            raise PipelineError(_with_place(flaw, file, mark and mark.line + 1)) from error
        except RecursionError as error:
            flaw = "pipeline: not YAML: it is nested too deeply"
            raise PipelineError(_with_place(flaw, file, None)) from error

    @contextmanager
    def lines_of_errors(self, verbs: Container[str] = ()) -> Iterator[None]:
        """Errors in the block begin with the line of their value, or of the step that they name.

        Each line of a message is an error of its own. The name of a step is at one of ``verbs``.
        """
        try:
            yield
        except _PlacedError as error:
            line = _line(self.root, (*error.path, *_field(str(error))))
            raise PipelineError(_with_place(str(error), self.file, line)) from error.__cause__
        except PipelineError as error:
            lines = self._step_lines(verbs)
            errors = str(error).split("\n")
            placed = "\n".join(_with_place(one, self.file, lines.get(_step(one))) for one in errors)
            raise PipelineError(placed) from error.__cause__

    def _step_lines(self, verbs: Container[str]) -> dict[str, int]:
        """Name of a step -> its line."""
        _, steps = _child(self.root, "steps")
        items = steps.value if isinstance(steps, yaml.SequenceNode) else []
        return {
            value.value: item.start_mark.line + 1
            for item in items
            if isinstance(item, yaml.MappingNode)
            for key, value in item.value
            if isinstance(key.value, str) and key.value in verbs
        }


def _with_place(error: str, file: str, line: int | None) -> str:
    """The error behind its place, as compilers write it; `line 3: ` where the file has no name."""
    if line is None:
        return f"{file}: {error}" if file else error
    return f"{file}:{line}: {error}" if file else f"line {line}: {error}"


def _step(error: str) -> str:
    """The name of the step in an error of a whole graph."""
    step = re.match("step '([^']*)'", error)
    return step[1] if step else ""


def _field(error: str) -> tuple[str, ...]:
    """The field in an error of a step that says what the field must be."""
    field = re.match(r"step '[^']*': (?:\w+: )?(\w+) must ", error)
    return (field[1],) if field else ()


def _line(root: yaml.Node | None, path: tuple[Hashable, ...]) -> int:
    """The line of the value at ``path``, or of the innermost one around it that there is.

    A value of a key begins at its key.
    """
    node, line = root, 1
    for key in path:
        mark, node = _child(node, key)
        if mark is None:
            break
        line = mark.line + 1
    return line


def _child(node: yaml.Node | None, key: Hashable) -> tuple[yaml.Mark | None, yaml.Node | None]:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark, node.value[key]
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name.start_mark, value
    return None, None


def _second_key(node: yaml.Node | None, visited: set[int]) -> yaml.ScalarNode | None:
    """A key that its mapping has already: the last of two would win without a word."""
    if node is None or id(node) in visited:
        return None
    visited.add(id(node))  # an alias may lead back
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, (_second_key(item, visited) for item in node.value)), None)
    if not isinstance(node, yaml.MappingNode):
        return None
    names = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for number, key in enumerate(names):
        if any(key.value == before.value for before in names[:number]):
            return key
    return next(filter(None, (_second_key(value, visited) for _, value in node.value)), None)
