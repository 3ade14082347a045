"""Opening and closing an author's operators where they run.

An operator (the function of a flat_map, map or filter, or a call's spec) may have ``open(context)``
and ``close()``. What cannot travel lives there: a tokenizer, a client, a compiled template. Each
step opens a copy of its own, so the operator in the graph stays the value that it was.
"""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar, cast

from sage_flink.flow.author_code import attributes_set_on_self, owner_of
from sage_flink.flow.functions import Filter, Map, unwrap
from sage_flink.flow.ports import OpenContext
from sage_flink.flow.stateful.keys import KeyOf

T = TypeVar("T")


def open_copy(operator: T, context: OpenContext) -> T:
    """A copy of ``operator`` after its ``open``; itself where it has neither open nor close.

    What ``open`` raises is raised, with a note that names the step and the operator's class.
    """
    if isinstance(operator, Map | Filter | KeyOf):
        inner = open_copy(operator.function, context)
        return cast(T, dataclasses.replace(operator, function=inner))
    if not is_openable(operator):
        return operator
    opened: Any = copy.copy(operator)
    if callable(method := getattr(opened, "open", None)):
        try:
            method(context)
        except Exception as error:
            error.add_note(
                f"step {context.step!r}: raised by {type(opened).__name__}.open(context)"
            )
            raise
    return cast(T, opened)


def close(operator: object) -> None:
    """Call the operator's ``close`` where it has one."""
    if callable(method := getattr(unwrap(operator), "close", None)):
        method()


def is_openable(operator: object) -> bool:
    """Whether the operator has an ``open`` or a ``close``."""
    own = unwrap(operator)
    return any(callable(getattr(own, name, None)) for name in ("open", "close"))


def open_flaws(operator: object) -> Iterator[str]:
    """Why ``open`` is never called, or fails on every worker, in words; empty where it can run."""
    own = unwrap(operator)
    owner = owner_of(own)
    if owner is not own and not isinstance(owner, type) and callable(getattr(owner, "open", None)):
        way = "a partial of it" if isinstance(own, functools.partial) else "its method"
        yield f"{type(owner).__name__} has open; pass the object itself, not {way}"
    if not callable(method := getattr(own, "open", None)):
        return
    kind = type(own)
    try:
        with suppress(ValueError):  # a method without a signature, such as one written in C
            inspect.signature(method).bind(OpenContext("job", "step"))
    except TypeError:
        yield f"{kind.__name__}.open must take one argument, the context: def open(self, context)"
    if _is_frozen(kind) and (names := attributes_set_on_self(method)):
        yield (
            f"{kind.__name__} has open(context) but is frozen, so open cannot set "
            f"{', '.join(map(repr, names))}; make it a plain @dataclass"
        )


def _is_frozen(kind: type) -> bool:
    parameters = vars(kind).get("__dataclass_params__")  # a subclass can be a plain class again
    return parameters is not None and bool(parameters.frozen)
