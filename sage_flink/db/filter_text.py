"""The text form of a filter, for YAML, command line and HTTP: a Python expression, never run.

>>> where = parse_filter('year >= 2024 and lang in ["en", "de"] and not title.like("A%")')
>>> where.matches({"year": 2025, "lang": "de", "title": "Baum"})
True
>>> parse_filter("year => 2024")
Traceback (most recent call last):
sage_flink.common.errors.Rejected: filter: at character 6: invalid syntax: 'year => 2024'

========================================  =====================================================
``year >= 2024``, ``1 < pages <= 9``      comparisons: ``== != < <= > >=``
``lang in ["en"]``, ``lang not in [..]``  equals one of
``"red" in tags``, ``tags.contains(1)``   an array has the item
``title.like("A%")``                      ``%`` any text, ``_`` one character
``author.exists()``                       there is a value, null too
``!=``, ``<``, ``>``, ...                 false where there is no value; ``not in`` is true there
``meta.author``, ``meta["a b"]``          a place in an object; ``tags[0]`` in an array
``field("in")``                           a field whose name is no Python name
``and``, ``or``, ``not``, ``( )``         in this order of strength: not, and, or
``true``, ``false``                       and numbers and text, as Python or JSON has them
========================================  =====================================================

``str(filter)`` is the text of a filter.
"""

import ast
import keyword
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TypeVar

from sage_flink.common.errors import Rejected
from sage_flink.db.fields import Field
from sage_flink.db.filter_values import RESERVED, Scalar
from sage_flink.db.filters import (
    All,
    Comparison,
    Contains,
    Either,
    Exists,
    Like,
    OneOf,
    RowFilter,
)

T = TypeVar("T")

TEXT_MAX = 200_000
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_SYMBOLS: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
#: Warnings are of the process: two threads must not put them back in each other's order.
_PARSING = threading.Lock()
_LITERALS = {"true": True, "false": False}


def parse_filter(text: str) -> RowFilter:
    """The filter of a text.

    Raises:
        Rejected: the text is no filter; the message has the character at which it fails.
    """
    if len(text) > TEXT_MAX:
        raise Rejected(f"filter: at most {TEXT_MAX} characters, got {len(text)}")
    return _TextFilter(text).parse()


class _TextFilter:
    """Turns the syntax tree of a text into a filter, node by node; others than known are errors."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = re.split("\r\n|\r|\n", text)  # as Python's parser does

    def parse(self) -> RowFilter:
        try:
            with _PARSING, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a backslash that Python finds odd
                # In brackets, so that a text may have several lines.
                body = ast.parse(f"(\n{self.text}\n)", mode="eval").body
        except SyntaxError as error:
            line = error.lineno or 1
            known = 2 <= line <= len(self.lines) + 1
            why = error.msg if known else "the brackets do not match"
            if any(map(keyword.iskeyword, re.findall(r"\w+", self.text))):
                why += '; a field whose name is a word of Python is written field("class")'
            at = error.offset or 1 if known else 1
            raise self._refusal_at(line if known else 2, at, why) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise Rejected(f"filter: it cannot be read: {error}: {self.text!r:.200}") from error
        if not self.text.strip():
            raise Rejected("filter: it is empty")
        if isinstance(body, ast.Tuple):
            raise self._refusal_at(2, 1, "conditions are joined by and, or")
        if body.lineno == 1:
            raise self._refusal_at(2, 1, "the brackets do not match")
        try:
            return self._filter(body)
        except RecursionError as error:
            raise Rejected("filter: its conditions are nested too deep") from error

    def _filter(self, node: ast.expr) -> RowFilter:
        match node:
            case ast.BoolOp(op=ast.And()):
                return All(tuple(map(self._filter, node.values)))
            case ast.BoolOp():
                return Either(tuple(map(self._filter, node.values)))
            case ast.UnaryOp(op=ast.Not()):
                return ~self._filter(node.operand)
            case ast.Compare():
                return self._chain(node)
            case ast.Call(func=ast.Attribute()):
                return self._method(node)
        raise self._refusal(node, "a condition is needed here, such as year >= 2024 or new == true")

    def _chain(self, node: ast.Compare) -> RowFilter:
        sides = pairwise([node.left, *node.comparators])
        parts = [self._compare(a, op, b) for (a, b), op in zip(sides, node.ops, strict=True)]
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> RowFilter:
        if isinstance(op, ast.In | ast.NotIn):
            found = self._in(left, right)
            return found if isinstance(op, ast.In) else ~found
        if type(op) not in _SYMBOLS:
            raise self._refusal(left, "is compares nothing here; use ==, or author.exists()")
        symbol = _SYMBOLS[type(op)]
        if self._is_literal(left):
            left, right, symbol = right, left, _FLIPPED[symbol]
        place, value = self._field(left).place, self._scalar(right)
        return self._build(left, Comparison, place, symbol, value)

    def _in(self, left: ast.expr, right: ast.expr) -> RowFilter:
        if self._is_literal(left):
            place, value = self._field(right).place, self._scalar(left)
            return self._build(right, Contains, place, value)
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise self._refusal(right, "after in comes a list such as [1, 2]")
        values = tuple(map(self._scalar, right.elts))
        return self._build(left, OneOf, self._field(left).place, values)

    def _method(self, node: ast.Call) -> RowFilter:
        assert isinstance(node.func, ast.Attribute)
        place = self._field(node.func.value).place
        match node.func.attr, [self._scalar(argument) for argument in node.args], node.keywords:
            case "like", [str() as pattern], []:
                return self._build(node, Like, place, pattern)
            case "contains", [value], []:
                return self._build(node, Contains, place, value)
            case "exists", [], []:
                return self._build(node, Exists, place)
        raise self._refusal(node, "the functions are like(text), contains(value) and exists()")

    def _field(self, node: ast.expr) -> Field:
        match node:
            case ast.Name() if node.id not in RESERVED:
                return self._build(node, Field, (self._as_written(node, node.id),))
            case ast.Attribute():
                return self._field(node.value)[self._as_written(node, node.attr)]
            case ast.Subscript():
                owner, key = self._field(node.value), self._scalar(node.slice)
                return self._build(node, Field.__getitem__, owner, key)
            case ast.Call(func=ast.Name(id="field"), args=[argument], keywords=[]):
                return self._build(node, Field, (self._scalar(argument),))
        raise self._refusal(node, "a field is needed here")

    def _as_written(self, node: ast.expr, name: str) -> str:
        """The name; Python writes some letters in another way, and would compare another field."""
        line = self.lines[(node.end_lineno or node.lineno) - 2].encode()
        if not line[: node.end_col_offset].decode().endswith(name):
            raise self._refusal(
                node, f"Python reads this name as {name}; write field(...) or [...]"
            )
        return name

    def _is_literal(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Constant | ast.UnaryOp) or (
            isinstance(node, ast.Name) and node.id in _LITERALS
        )

    def _scalar(self, node: ast.expr) -> Scalar:
        match node:
            case ast.Constant(value=str() | bool() | int() | float() as value):
                return value
            case ast.Name() if node.id in _LITERALS:
                return _LITERALS[node.id]
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
        raise self._refusal(node, "a value is needed here: text in quotes, a number, true or false")

    def _build(self, node: ast.expr, make: Callable[..., T], *arguments: object) -> T:
        """What ``make`` returns; its error gets the place in the text."""
        try:
            return make(*arguments)
        except Rejected as error:
            raise self._refusal(node, str(error).removeprefix("filter: ")) from error

    def _refusal(self, node: ast.expr, why: str) -> Rejected:
        line = self.lines[node.lineno - 2]
        before = line.encode()[: node.col_offset].decode()  # Python counts in bytes
        return self._refusal_at(node.lineno, len(before) + 1, why)

    def _refusal_at(self, line: int, character: int, why: str) -> Rejected:
        place = f"line {line - 1}, " if len(self.lines) > 1 else ""
        place += f"character {character}"
        return Rejected(f"filter: at {place}: {why}: {self.text!r:.200}")
