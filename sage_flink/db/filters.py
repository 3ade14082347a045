"""Filters of a vector store: conditions on the fields of a row, one meaning on every store.

>>> from sage_flink.db.fields import field
>>> recent = (field("year") >= 2024) & field("lang").in_(["en", "de"])
>>> recent.matches({"year": 2025, "lang": "de"}), recent.matches({"lang": "de"})
(True, False)
>>> print(recent)
year >= 2024 and lang in ["en", "de"]

A condition is true or false, never unknown. A comparison with a field that is absent, null or of
another type is false, with ``!=`` too; ``~`` inverts it, so ``~(field("year") == 2024)`` is true of
a row without a year. A whole number equals the same number with a point (the two are compared as
64-bit floats); true and false equal no number. Text is ordered by code points.

Fields are those of the row, and ``id``. ``field("meta")["author"]`` and ``field("tags")[0]`` are
places in a JSON object or array. An empty ``doc`` or ``version`` is absent.

Source: SQL's WHERE without its unknown.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from sage_flink.common.errors import Rejected
from sage_flink.db.filter_values import (
    ABSENT,
    OPERATORS,
    Place,
    Scalar,
    check_place,
    check_value,
    compare,
    pattern_regex,
    place_text,
    value_at,
    value_text,
)

#: More would slow a server down, or overflow its stack.
VALUES_MAX, CONDITIONS_MAX, DEPTH_MAX = 10_000, 1_000, 30


class RowFilter(ABC):
    """A condition on a row; combine filters with ``&``, ``|`` and ``~``."""

    __slots__ = ()
    #: How many conditions it has, and how deep they are nested.
    conditions: int = 1
    depth: int = 1

    @abstractmethod
    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether it is true of a row, a mapping of its fields and its ``id``."""

    def __and__(self, other: "RowFilter") -> "RowFilter":
        return _combine(All, self, other)

    def __or__(self, other: "RowFilter") -> "RowFilter":
        return _combine(Either, self, other)

    def __invert__(self) -> "RowFilter":
        return Not((self,))

    def __bool__(self) -> bool:
        raise TypeError("a filter has no truth value; combine filters with & | ~, each in brackets")


@dataclass(frozen=True, slots=True)
class Condition(RowFilter):
    """What is said of the value at one place."""

    place: Place

    def __post_init__(self) -> None:
        check_place(self.place)


@dataclass(frozen=True, slots=True)
class Comparison(Condition):
    """The value at ``place`` compared with ``value``."""

    operator: str
    value: Scalar

    def __post_init__(self) -> None:
        Condition.__post_init__(self)
        check_value(self.value, place_text(self.place))
        if self.operator not in OPERATORS:
            known = ", ".join(OPERATORS)
            raise Rejected(
                f"filter: an operator must be one of {known}, got {self.operator!r:.100}"
            )
        if isinstance(self.value, bool) and self.operator not in {"==", "!="}:
            raise Rejected(f"filter: {self}: true and false have no order; use == or !=")

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether the value there is of the same type, and compares so."""
        found = value_at(row, self.place)
        return compare(found, self.operator, self.value)

    def __str__(self) -> str:
        return f"{place_text(self.place)} {self.operator} {value_text(self.value)}"


@dataclass(frozen=True, slots=True)
class OneOf(Condition):
    """The value at ``place`` equals one of ``values``; of none it is false."""

    values: tuple[Scalar, ...]

    @property
    def conditions(self) -> int:  # type: ignore[override]
        """Ten values count as one condition."""
        return max(1, len(self.values) // 10)

    def __post_init__(self) -> None:
        Condition.__post_init__(self)
        if len(self.values) > VALUES_MAX:
            raise Rejected(f"filter: {place_text(self.place)} in: at most {VALUES_MAX} values")
        for value in self.values:
            check_value(value, place_text(self.place))

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether the value there equals one of them, of the same type."""
        found = value_at(row, self.place)
        return any(compare(found, "==", value) for value in self.values)

    def __str__(self) -> str:
        return f"{place_text(self.place)} in [{', '.join(map(value_text, self.values))}]"


@dataclass(frozen=True, slots=True)
class Like(Condition):
    r"""The text at ``place`` fits ``pattern`` as a whole.

    ``%`` is any text, also none, ``_`` one character, and ``\`` makes the next character plain.
    """

    pattern: str

    def __post_init__(self) -> None:
        Condition.__post_init__(self)
        check_value(self.pattern, place_text(self.place))
        if not isinstance(self.pattern, str):
            raise Rejected(f"filter: {place_text(self.place)}.like: a pattern must be text")

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is text that fits."""
        found = value_at(row, self.place)
        return isinstance(found, str) and bool(pattern_regex(self.pattern).fullmatch(found))

    def __str__(self) -> str:
        return f"{place_text(self.place)}.like({value_text(self.pattern)})"


@dataclass(frozen=True, slots=True)
class Contains(Condition):
    """The array at ``place`` has an item that equals ``value``."""

    value: Scalar

    def __post_init__(self) -> None:
        Condition.__post_init__(self)
        check_value(self.value, place_text(self.place))

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is an array with such an item, of the same type."""
        found = value_at(row, self.place)
        items = found if isinstance(found, list | tuple) else ()
        return any(compare(item, "==", self.value) for item in items)

    def __str__(self) -> str:
        return f"{place_text(self.place)}.contains({value_text(self.value)})"


@dataclass(frozen=True, slots=True)
class Exists(Condition):
    """There is a value at ``place``, null too."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is one."""
        return value_at(row, self.place) is not ABSENT

    def __str__(self) -> str:
        return f"{place_text(self.place)}.exists()"


@dataclass(frozen=True, slots=True)
class Compound(RowFilter):
    """A filter that combines ``parts``, one or more."""

    parts: tuple[RowFilter, ...]
    conditions: int = dataclass_field(default=0, init=False, repr=False, compare=False)
    depth: int = dataclass_field(default=1, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.parts:
            raise Rejected("filter: an and or an or has a condition or more")
        conditions = sum(part.conditions for part in self.parts)
        depth = 1 + max(part.depth for part in self.parts)
        if conditions > CONDITIONS_MAX:
            raise Rejected(f"filter: at most {CONDITIONS_MAX} conditions; for many values use in")
        if depth > DEPTH_MAX:
            raise Rejected(f"filter: conditions are nested more than {DEPTH_MAX} deep")
        object.__setattr__(self, "conditions", conditions)
        object.__setattr__(self, "depth", depth)


@dataclass(frozen=True, slots=True)
class All(Compound):
    """Each of its parts is true."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether all are."""
        return all(part.matches(row) for part in self.parts)

    def __str__(self) -> str:
        return " and ".join(map(_in_brackets, self.parts))


@dataclass(frozen=True, slots=True)
class Either(Compound):
    """At least one of its parts is true."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether one is."""
        return any(part.matches(row) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(map(_in_brackets, self.parts))


@dataclass(frozen=True, slots=True)
class Not(Compound):
    """Its only part is false."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether it is."""
        return not self.parts[0].matches(row)

    def __str__(self) -> str:
        return f"not ({self.parts[0]})"


def _combine(kind: type[All] | type[Either], *parts: RowFilter) -> RowFilter:
    groups = [part.parts if isinstance(part, kind) else (part,) for part in parts]
    return kind(tuple(part for group in groups for part in group))


def _in_brackets(part: RowFilter) -> str:
    return f"({part})" if isinstance(part, All | Either) else str(part)
