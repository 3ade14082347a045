"""Static checks of an author's functions: location, asynchronous kinds, state lost at a restart.

The source shows what a function assigns and fills, or else its byte code; closure, globals and
attributes show the objects that it keeps. Each has a path: ``seen``, or ``self.seen`` for an
attribute of the function's own object. Only certain findings are reported: state inside an object
of another class is not found.
"""

import ast
import builtins
import contextlib
import dis
import functools
import inspect
import io
import linecache
import re
import socket
import threading
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any, get_origin

from sage_flink.flow.functions import unwrap

_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event)
_CONTAINERS = (list, dict, set, deque, bytearray)
_ADDING = {"add", "append", "appendleft", "extend", "insert", "setdefault", "update"}
_REMOVING = {"clear", "discard", "pop", "popitem", "popleft", "remove"}
_MUTATORS = _ADDING | _REMOVING


def innermost(function: Any) -> Any:
    """The author's own function or object, without map, filter, partial and bound method."""
    function = unwrap(function)
    while isinstance(function, functools.partial):
        function = unwrap(function.func)
    return function.__func__ if inspect.ismethod(function) else function


def code_of(function: Any) -> CodeType | None:
    """The byte code of a function, or of an object's ``__call__``; None where it is not Python."""
    return getattr(inspect.unwrap(_python_function(function)), "__code__", None)


def place_of(function: Any) -> str:
    """Where the function is written, as `` (file:line)``; empty where that is not known."""
    code = code_of(function)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""


def returned_type(function: Any) -> type | None:
    """The class that the function is annotated to return: ``dict`` for ``dict[str, int]``.

    None where there is no annotation, or one that names more or less than one class, and for a
    decorated function: its annotations are those of the function inside.
    """
    method = _python_function(function)
    if hasattr(method, "__wrapped__"):
        return None
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
    code, owner = code_of(function), owner_of(function)
    if code is None:
        return
    own = code.co_varnames[0] if owner is not None and code.co_varnames else ""
    fresh = {f"{own}.{name}" for name in _attributes_set_by_open(type(owner))}
    kept = {p: value for p, value in _reachable(function, code, own).items() if p not in fresh}
    for path, value in kept.items():
        if kind := _volatile(value):
            yield f"{path.removeprefix(f'{own}.')!r} is {kind}"
    containers = {path for path, value in kept.items() if isinstance(value, _CONTAINERS)}
    if tree := _source_of(code):
        changes = _changes_in_source(tree, own, containers)
    else:
        changes = _changes_in_byte_code(code, own, containers)
    for path in dict.fromkeys((*_assigned_names(code), *changes)):
        if path not in fresh:
            yield f"{path.removeprefix(f'{own}.')!r} changes from record to record"


def attributes_set_on_self(method: Any) -> list[str]:
    """The attributes of its own object that a method assigns by ``self.name = ...``."""
    code = getattr(method, "__code__", None)
    if code is None or not code.co_varnames:
        return []
    own = code.co_varnames[0]
    return [path.removeprefix(f"{own}.") for path in _changes_in_byte_code(code, own, ())]


def owner_of(function: Any) -> Any:
    """The object of a bound method or a callable object; None for a plain function."""
    while isinstance(function, functools.partial):
        function = unwrap(function.func)
    if inspect.ismethod(function):
        return function.__self__
    return None if inspect.isfunction(function) else function


def _reachable(function: Any, code: CodeType, own: str) -> dict[str, Any]:
    """Path -> object, for all that the function can reach by a name of its own."""
    wrapper, owner = _python_function(function), owner_of(function)
    found: dict[str, Any] = {}
    if owner is not None:
        found.update((f"{own}.{name}", value) for name, value in _attributes(owner, code).items())
    for one in filter(inspect.isfunction, (wrapper, inspect.unwrap(wrapper))):
        found.update(_closure(one))
    if inspect.isfunction(method := inspect.unwrap(wrapper)):
        names = {i.argval for c in _codes(code) for i in dis.get_instructions(c) if _is_global(i)}
        found.update((n, method.__globals__[n]) for n in names if n in method.__globals__)
        found.update(_defaults(method))
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
    """The author's own function, or its object's ``__call__``; both may be decorated."""
    inner = innermost(function)
    return inner if inspect.isfunction(inner) else _call_of(inner)


def _call_of(thing: Any) -> Any:
    return inspect.getattr_static(type(thing), "__call__", None)


def _attributes(thing: Any, code: CodeType) -> dict[str, Any]:
    """The object's attributes, and those of its class that the code mentions."""
    bases = type(thing).__mro__
    used = {name for one in _codes(code) for name in one.co_names}
    found = {n: v for base in reversed(bases) for n, v in vars(base).items() if n in used}
    slots = (s for base in bases for s in getattr(base, "__slots__", ()))
    names = dict.fromkeys((*getattr(thing, "__dict__", ()), *slots))
    return found | {name: getattr(thing, name) for name in names if hasattr(thing, name)}


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


def _assigned_names(code: CodeType) -> Iterator[str]:
    """The names outside of the code that it assigns: its ``global`` and ``nonlocal`` ones."""
    for one in _codes(code):
        for step in dis.get_instructions(one):
            outer = step.opname == "STORE_DEREF" and step.argval in code.co_freevars
            if outer or step.opname == "STORE_GLOBAL":
                yield step.argval


def _source_of(code: CodeType) -> ast.AST | None:
    """The function's syntax tree; None without source, or with two such functions in one line."""
    try:
        functions = _functions_in("".join(linecache.getlines(code.co_filename)))
    except SyntaxError:
        return None
    found = functions.get((code.co_name, code.co_firstlineno), ())
    return found[0] if len(found) == 1 else None


@functools.lru_cache(maxsize=8)  # to parse a file takes 10 ms, and its pipeline has many functions
def _functions_in(source: str) -> Mapping[tuple[str, int], Sequence[ast.AST]]:
    """The functions of a source by their name and line, with a decorator also by that line."""
    found: dict[tuple[str, int], list[ast.AST]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            decorators = getattr(node, "decorator_list", ())
            for line in {node.lineno, *(one.lineno for one in decorators)}:
                found.setdefault((getattr(node, "name", "<lambda>"), line), []).append(node)
    return found


def _changes_in_source(tree: ast.AST, own: str, containers: Container[str]) -> Iterator[str]:
    """The own object's attributes that the function assigns, and the containers that it fills."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=thing), ctx=ast.Store() | ast.Del()):
                if thing == own:
                    yield ast.unparse(node)
                continue
            case ast.Attribute(value=filled, attr=name) if name in _MUTATORS:
                pass
            case ast.Subscript(ctx=ast.Store() | ast.Del(), value=filled):
                while isinstance(filled, ast.Subscript):  # a of a[b][c]
                    filled = filled.value
            case _:
                continue
        if (path := ast.unparse(filled)) in containers:
            yield path


def _changes_in_byte_code(code: CodeType, own: str, containers: Container[str]) -> Iterator[str]:
    """As in the source, without ``a[b] = c``: byte code separates ``a`` from the assignment."""
    for one in _codes(code):
        for step, path in _steps(one):
            match step.opname:
                case "STORE_ATTR" | "DELETE_ATTR" if path == own:
                    yield f"{own}.{step.argval}"
                case "LOAD_ATTR" | "LOAD_METHOD" if step.argval in _MUTATORS and path in containers:
                    yield path


def _steps(code: CodeType) -> Iterator[tuple[dis.Instruction, str]]:
    """Each instruction with the path that those before it load; ``?`` for another value."""
    path = copied = "?"
    for step in dis.get_instructions(code):
        yield step, path
        match step.opname:
            case "EXTENDED_ARG":  # belongs to the next instruction
                pass
            case "LOAD_ATTR" | "LOAD_METHOD":
                path = f"{path}.{step.argval}"
            case "COPY":  # self.count += 1 is: load self, copy, load count, add, swap, store
                copied = path
            case "SWAP":
                path = copied
            case opname:
                path = str(step.argval) if opname.startswith("LOAD_") else "?"


def _attributes_set_by_open(kind: type) -> set[str]:
    """The attributes that any ``open`` of the class sets, or a method that it mentions."""
    names, found = ["open"], set[str]()
    for name in names:  # grows
        for base in kind.__mro__:
            method: Any = vars(base).get(name)
            if inspect.isfunction(method := inspect.unwrap(method)):
                found.update(attributes_set_on_self(method))
                used = (n for one in _codes(method.__code__) for n in one.co_names)
                names += [n for n in dict.fromkeys(used) if n not in names]
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_global(step: dis.Instruction) -> bool:
    return step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}
