"""Opening and closing an author's operators where they run.

An operator (the function of a flat_map, map or filter, or a call's spec) may have ``open(context)``
and ``close()``. What cannot travel lives there: a tokenizer, a client, a compiled template. Each
step opens a copy of its own, so the operator in the graph stays the value that it was.
"""

import copy
import dataclasses
from typing import Any, TypeVar, cast

from sage_flink.flow.functions import Filter, Map, unwrap
from sage_flink.flow.ports import OpenContext

T = TypeVar("T")


def open_copy(operator: T, context: OpenContext) -> T:
    """A copy of ``operator`` after its ``open``; itself where it has neither open nor close."""
    if isinstance(operator, Map | Filter):
        inner = open_copy(operator.function, context)
        return cast(T, dataclasses.replace(operator, function=inner))
    if not is_openable(operator):
        return operator
    opened: Any = copy.copy(operator)
    if callable(method := getattr(opened, "open", None)):
        method(context)
    return cast(T, opened)


def close(operator: object) -> None:
    """Call the operator's ``close`` where it has one."""
    if callable(method := getattr(unwrap(operator), "close", None)):
        method()


def is_openable(operator: object) -> bool:
    """Whether the operator has an ``open`` or a ``close``."""
    own = unwrap(operator)
    return any(callable(getattr(own, name, None)) for name in ("open", "close"))
