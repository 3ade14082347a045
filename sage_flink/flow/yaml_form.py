"""The YAML form of a graph: the other spelling of the same value.

``vocabulary`` maps a word to the frozen dataclass it stands for; a Python function has no YAML
spelling. Files, servers and URLs are free to name: text from a tenant needs a narrower vocabulary.

>>> import sage_connectors
>>> from sage_flink import db, operators
>>> from sage_flink.flow import check
>>> words = vocabulary(sage_connectors, db, operators)
>>> graph = from_yaml('''
... steps:
...   - read: documents
...     from: {kafka: {topic: documents}}
...   - flat_map: decode
...     input: documents
...     with: decode_document
...   - flat_map: split
...     input: decode
...     with: {chunk: {tokens_max: 200, overlap: 20}}
...   - flat_map: rows
...     input: split
...     with: drop_deletes
...   - flat_map: json
...     input: rows
...     with: encode_json
...   - write: chunks
...     input: json
...     into: {kafka: {topic: chunks}}
... dead_letters: {kafka: {topic: dead-letters}}
... ''', words)
>>> check(graph) == graph == from_yaml(to_yaml(graph, words), words)
True
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from sage_flink.common.errors import PipelineError, SageError
from sage_flink.flow.graph import Batch, Call, FlatMap, Graph, Node, Read, Union, Write, finished

#: Verb -> node, and the key under which its spec stands with the node's field for it.
VERBS: dict[str, tuple[type[Node], str, str]] = {
    "read": (Read, "from", "source"),
    "flat_map": (FlatMap, "with", "function"),
    "call": (Call, "to", "spec"),
    "batch": (Batch, "", ""),
    "union": (Union, "", ""),
    "write": (Write, "into", "sink"),
}
#: Key -> the methods of a spec that can stand there, any one of them.
PLACES: dict[str, tuple[str, ...]] = {
    "from": ("records", "flink_source"),
    "with": ("__call__",),
    "to": ("request",),
    "into": ("writer", "flink_sink"),
    "dead_letters": ("writer", "flink_sink"),
}
_PLAIN: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
Vocabulary = Mapping[str, type]


def vocabulary(*modules: ModuleType) -> dict[str, type]:
    """Word -> spec, for every frozen dataclass that the modules export and a step can hold.

    ``Chunk`` is ``chunk``.
    """
    specs: Iterable[Any] = (getattr(m, name) for m in modules for name in m.__all__)
    kinds = (s for s in specs if isinstance(s, type) and dataclasses.is_dataclass(s))
    return {_word(kind): kind for kind in kinds if any(_fits(kind, key) for key in PLACES)}


def to_yaml(graph: Graph, words: Vocabulary) -> str:
    """The graph in YAML; :func:`from_yaml` reads an equal graph back.

    Raises:
        PipelineError: a step holds something that is not in the vocabulary.
    """
    document: dict[str, Any] = {"steps": [_spelled(node, words) for node in finished(graph).nodes]}
    if graph.dead_letters is not None:
        document["dead_letters"] = _spec("pipeline", "dead_letters", graph.dead_letters, words)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def from_yaml(text: str, words: Vocabulary) -> Graph:
    """The graph that ``text`` spells; not yet checked as a whole.

    Raises:
        PipelineError: not YAML, an unknown verb, word or field, or a value of the wrong type.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PipelineError(f"pipeline: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        raise PipelineError("pipeline: needs a list `steps:`, each a step such as `read: name`")
    if extra := set(document) - {"steps", "dead_letters"}:
        raise PipelineError(f"pipeline: unknown key {sorted(map(str, extra))[0]!r}")
    dead = document.get("dead_letters")
    return Graph(
        tuple(_read(step, words) for step in document["steps"]),
        None if dead is None else _build("pipeline", "dead_letters", dead, words),
    )


def _spelled(node: Any, words: Vocabulary) -> dict[str, Any]:
    verb, (_, key, held) = next(item for item in VERBS.items() if isinstance(node, item[1][0]))
    step: dict[str, Any] = {verb: node.name}
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if f.name == held:
            step[key] = _spec(f"step {node.name!r}", key, value, words)
        elif f.name != "name" and value != f.default:
            step[f.name] = list(value) if isinstance(value, tuple) else value
    return step


def _spec(where: str, key: str, value: Any, words: Vocabulary) -> dict[str, Any]:
    kind: type = type(value)
    word = _word(kind)
    if words.get(word) is not kind:
        raise PipelineError(
            f"{where}: {kind.__name__} has no YAML spelling; use one of: {_fitting(key, words)}"
        )
    fields: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        default = f.default_factory() if callable(f.default_factory) else f.default
        if f.init and f.compare and (held := getattr(value, f.name)) != default:
            fields[f.name] = msgspec.to_builtins(held)
    return {word: fields}


def _read(step: Any, words: Vocabulary) -> Node:
    verbs = [key for key in step if key in VERBS] if isinstance(step, dict) else []
    if len(verbs) != 1:
        raise PipelineError(f"pipeline: a step needs one of {', '.join(VERBS)}, got {step!r:.200}")
    kind, key, held = VERBS[verbs[0]]
    name = step[verbs[0]]
    where = f"step {name!r}"
    values = {k: v for k, v in step.items() if k not in (verbs[0], key)}
    if held:
        if key not in step:
            raise PipelineError(f"{where}: needs `{key}:` with one of: {_fitting(key, words)}")
        values[held] = _build(where, key, step[key], words)
    node: Node = kind(**_typed(where, kind, {"name": name, **values}, ready=held))
    return node


def _build(where: str, key: str, spelled: Any, words: Vocabulary) -> Any:
    if isinstance(spelled, str):
        spelled = {spelled: {}}
    if not isinstance(spelled, dict) or len(spelled) != 1:
        raise PipelineError(f"{where}: expected one word with its fields, got {spelled!r:.200}")
    word, fields = next(iter(spelled.items()))
    kind = words.get(word)
    if kind is None or not _fits(kind, key):
        raise PipelineError(
            f"{where}: `{key}:` does not know {word!r}; use one of: {_fitting(key, words)}"
        )
    if not isinstance(fields or {}, dict):
        raise PipelineError(f"{where}: {word}: expected fields, got {fields!r:.200}")
    values = _typed(where, kind, fields or {})
    try:
        return kind(**values)
    except SageError as error:
        raise PipelineError(f"{where}: {error}") from error


def _typed(where: str, kind: Any, values: dict[str, Any], ready: str = "") -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    if unknown := sorted(str(name) for name in values if name not in fields):
        raise PipelineError(
            f"{where}: unknown field {unknown[0]!r}; it knows: {', '.join(sorted(fields))}"
        )
    missing = dataclasses.MISSING
    for name, f in fields.items():
        if name not in values and f.default is missing and f.default_factory is missing:
            raise PipelineError(f"{where}: needs a field `{name}:`")
    hints = get_type_hints(kind)
    return {k: v if k == ready else _value(where, k, v, hints[k]) for k, v in values.items()}


def _value(where: str, name: str, value: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        said = re.sub(r", got `[^`]*`", "", str(error)).removeprefix("Expected ")
        asked = _PLAIN.get(hint, said)
        if get_origin(hint) is Literal:
            asked = f"one of {', '.join(map(repr, get_args(hint)))}"
        raise PipelineError(f"{where}: {name} must be {asked}, got {value!r:.100}") from error
    except SageError as error:
        raise PipelineError(f"{where}: {name}: {error}") from error


def _fits(kind: type, key: str) -> bool:
    return any(method in vars(base) for base in kind.__mro__ for method in PLACES[key])


def _fitting(key: str, words: Vocabulary) -> str:
    return ", ".join(sorted(word for word, kind in words.items() if _fits(kind, key)))


def _word(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
