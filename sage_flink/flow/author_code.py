"""Static checks of an author's functions: location, asynchronous kinds, state lost at a restart.

Byte code and source show the names that a function assigns; closure, globals and attributes show
the objects that it keeps. Only certain findings are reported: state inside an object of another
class is not found.
"""

import ast
import builtins
import contextlib
import dis
import functools
import inspect
import io
import itertools
import re
import socket
import textwrap
import threading
import tokenize
from collections import deque
from collections.abc import Iterator
from types import CodeType
from typing import Any, get_origin

from sage_flink.flow.functions import unwrap

_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event)
_CONTAINERS = (list, dict, set, deque, bytearray)
_MUTATORS = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "setdefault",
        "update",
    ]
)


def innermost(function: Any) -> Any:
    """The author's own function or object, without map, filter, partial and bound method."""
    function = unwrap(function)
    while isinstance(function, functools.partial):
        function = unwrap(function.func)
    return function.__func__ if inspect.ismethod(function) else function


def code_of(function: Any) -> CodeType | None:
    """The byte code of a function, or of an object's ``__call__``; None where it is not Python."""
    return getattr(_python_function(function), "__code__", None)


def place_of(function: Any) -> str:
    """Where the function is written, as `` (file:line)``; empty where that is not known."""
    code = code_of(function)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""


def returned_type(function: Any) -> type | None:
    """The class that the function is annotated to return: ``dict`` for ``dict[str, int]``.

    None where there is no annotation, or one that names more or less than one class.
    """
    method = _python_function(function)
    annotations = getattr(method, "__annotations__", {})
    returned = annotations.get("return", Any)
    if isinstance(returned, str):  # from __future__ import annotations
        name = re.fullmatch(r"(\w+)(\[[^|]*\])?", returned)
        known = {**vars(builtins), "None": None, **getattr(method, "__globals__", {})}
        returned = known.get(name[1], Any) if name else Any
    kind = type(None) if returned is None else get_origin(returned) or returned
    return kind if isinstance(kind, type) else None


def asynchronous(function: Any) -> str:
    """What kind of asynchronous function it is, in words; empty for a plain one."""
    inner = innermost(function)
    for one in (inner, _call_of(inner)):
        if inspect.iscoroutinefunction(one):
            return "a coroutine function"
        if inspect.isasyncgenfunction(one):
            return "an asynchronous generator function"
    return ""


def lost_state(function: Any) -> Iterator[str]:
    """What the function keeps from record to record outside of any checkpoint, in words.

    Attributes that ``open`` assigns are left out: they are meant to start fresh with the job.
    """
    function = unwrap(function)
    code, owner = code_of(function), _owner(function)
    if code is None:
        return
    fresh = _assigned_attributes(getattr(type(owner), "open", None))
    held = {n: value for n, value in _reachable(function, owner, code).items() if n not in fresh}
    for name, value in held.items():
        if kind := _volatile(value):
            yield f"{name!r} is {kind}"
    own = code.co_varnames[:1] if owner is not None else ()
    local = _local_names(function, code)
    changes = (*_changes(code, held, own, local), *_fills_by_index(code, held, own, local))
    for name in dict.fromkeys(changes):
        if name not in fresh:
            yield f"{name!r} changes from record to record"


def attributes_set_on_self(method: Any) -> list[str]:
    """The attributes of its own object that a method assigns by ``self.name = ...``."""
    code = getattr(method, "__code__", None)
    if code is None:
        return []
    steps = list(dis.get_instructions(code))
    return [
        str(step.argval)
        for before, step in itertools.pairwise(steps)
        if step.opname == "STORE_ATTR" and before.argval in code.co_varnames[:1]
    ]


def _owner(function: Any) -> Any:
    """The object of a bound method or a callable object; None for a plain function."""
    while isinstance(function, functools.partial):
        function = unwrap(function.func)
    if inspect.ismethod(function):
        return function.__self__
    return None if inspect.isfunction(function) else function


def _reachable(function: Any, owner: Any, code: CodeType) -> dict[str, Any]:
    """Name -> object, for all that the function can reach by a name of its own."""
    found: dict[str, Any] = {} if owner is None else _attributes(owner)
    inner = innermost(function)
    if inspect.isfunction(inner):
        names = {i.argval for c in _codes(code) for i in dis.get_instructions(c) if _is_global(i)}
        found.update((n, inner.__globals__[n]) for n in names if n in inner.__globals__)
        found.update(_closure(inner))
        found.update(_defaults(inner))
    if isinstance(function, functools.partial):
        found.update((f"argument {n}", value) for n, value in enumerate(function.args))
        found.update(function.keywords)
    return found


def _closure(function: Any) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {}
    for name, cell in cells:
        with contextlib.suppress(ValueError):  # a cell that is not filled yet
            found[name] = cell.cell_contents
    return found


def _python_function(function: Any) -> Any:
    """The function that runs: the author's own, or its object's ``__call__``; None without one."""
    inner = innermost(function)
    method = inner if inspect.isfunction(inner) else _call_of(inner)
    return None if method is None else inspect.unwrap(method)


def _call_of(thing: Any) -> Any:
    return inspect.getattr_static(type(thing), "__call__", None)


def _attributes(thing: Any) -> dict[str, Any]:
    slots = (s for base in type(thing).__mro__ for s in getattr(base, "__slots__", ()))
    names = dict.fromkeys((*getattr(thing, "__dict__", ()), *slots))
    return {name: getattr(thing, name) for name in names if hasattr(thing, name)}


def _defaults(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _volatile(value: Any) -> str:
    """What the object is, when it can be neither sent to a worker nor put into a checkpoint."""
    if isinstance(value, io.IOBase):
        return "an open file"
    if isinstance(value, socket.socket):
        return "a socket"
    if isinstance(value, _LOCKS):
        return "a lock"
    if isinstance(value, Iterator):
        return f"an iterator ({type(value).__name__})"
    return ""


def _local_names(function: Any, code: CodeType) -> set[str]:
    """The names that are new for each record: not defaults of parameters, nor a partial's."""
    names = {n for one in _codes(code) for n in (*one.co_varnames, *one.co_cellvars)}
    if inspect.isfunction(inner := innermost(function)):
        names -= _defaults(inner).keys()
    if isinstance(function, functools.partial):
        names -= function.keywords.keys()
    return names


def _changes(
    code: CodeType, held: dict[str, Any], own: tuple[str, ...], local: set[str]
) -> Iterator[str]:
    """The names outside of the code that it assigns, or that are containers and it fills."""
    for one in _codes(code):
        before = ""
        for step in dis.get_instructions(one):
            name = str(step.argval)
            match step.opname:
                case "STORE_GLOBAL":
                    yield name
                case "STORE_DEREF" if name in code.co_freevars:
                    yield name
                case "STORE_ATTR" if own and (name in held or before in own):
                    yield name
                case _ if name in _MUTATORS and before not in local:
                    if isinstance(held.get(before), _CONTAINERS):
                        yield before
            before = name


def _fills_by_index(
    code: CodeType, held: dict[str, Any], own: tuple[str, ...], local: set[str]
) -> Iterator[str]:
    """The containers in which the code sets or deletes an item: ``self.known[x] = 1``.

    Found in the source: byte code separates the container from the assignment by an expression of
    any length. A function without source has no findings.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, tokenize.TokenError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Subscript) or isinstance(node.ctx, ast.Load):
            continue
        match _outermost(node):
            case ast.Attribute(value=ast.Name(id=thing), attr=name) if thing in own:
                pass
            case ast.Name(id=name) if name not in local:
                pass
            case _:
                continue
        if isinstance(held.get(name), _CONTAINERS):
            yield name


def _outermost(node: ast.expr) -> ast.expr:
    """``a`` of ``a[b][c]``."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def _assigned_attributes(method: Any) -> set[str]:
    code = getattr(method, "__code__", None)
    if code is None:
        return set()
    return {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_ATTR"}


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_global(step: dis.Instruction) -> bool:
    return step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}
