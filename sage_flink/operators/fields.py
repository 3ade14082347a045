"""Functions of a record's named fields, for ``map`` and ``filter``.

>>> from sage_flink.common import Record
>>> record = Record(id="a", value={"doc": "intro", "lang": "en", "text": "..."})
>>> Select(("doc", "lang"))(record), Where("lang", "en")(record)
({'doc': 'intro', 'lang': 'en'}, True)
"""

from dataclasses import dataclass
from typing import Any

from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_name
from sage_flink.common.values import require_field, require_mapping
from sage_flink.flow.ports import NativeOperator


@dataclass(frozen=True, slots=True)
class Select:
    """For ``map``: the value with ``fields`` alone."""

    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        names = isinstance(self.fields, tuple) and bool(self.fields)
        require(names, "select", "fields", "a tuple of names such as ('doc', 'text')", self.fields)
        for name in self.fields:
            require_name("select", "fields", name)

    @property
    def native(self) -> NativeOperator | None:
        """The JVM's operator, which gives no field twice."""
        if len({*self.fields}) < len(self.fields):
            return None
        names = (list(self.fields), [repr(name) for name in self.fields])
        return NativeOperator("map", "fields.SelectOperator", names)

    def __call__(self, record: Record) -> dict[str, Any]:
        """The fields.

        Raises:
            Rejected: one of them is missing.
        """
        return {name: require_field(record, name, object) for name in self.fields}


@dataclass(frozen=True, slots=True)
class Where:
    """For ``filter``: the records where ``field`` equals ``equals``; a missing field does not."""

    field: str
    equals: str | int | float | bool

    def __post_init__(self) -> None:
        require_name("where", "field", self.field)

    @property
    def native(self) -> NativeOperator | None:
        """The JVM's operator for texts; numbers are compared by Python's rules."""
        if type(self.equals) is not str:
            return None
        return NativeOperator("filter", "fields.WhereOperator", (self.field, self.equals))

    def __call__(self, record: Record) -> bool:
        """Whether the record passes.

        Raises:
            Rejected: the value has no named fields.
        """
        return bool(require_mapping(record).get(self.field) == self.equals)
