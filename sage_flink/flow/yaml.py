"""The YAML form of a graph: the other spelling of the same value.

Made of allow-listed specs only, so it can be taken from a tenant. ``vocabulary`` maps a word to
the frozen dataclass it stands for; a Python function has no YAML spelling.

::

    steps:
      - read: documents
        from: {kafka: {topic: documents}}
      - flat_map: split
        input: documents
        with: {chunk: {tokens_max: 200}}
    dead_letters: {kafka: {topic: dead-letters}}
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, get_type_hints

import msgspec
import yaml

from sage_flink.common.errors import PipelineError
from sage_flink.flow.graph import Batch, Call, FlatMap, Graph, Node, Read, Union, Write

#: Verb -> node, and the key under which its spec stands with the node's field for it.
VERBS: dict[str, tuple[type[Node], str, str]] = {
    "read": (Read, "from", "source"),
    "flat_map": (FlatMap, "with", "function"),
    "call": (Call, "to", "spec"),
    "batch": (Batch, "", ""),
    "union": (Union, "", ""),
    "write": (Write, "into", "sink"),
}
Vocabulary = Mapping[str, type]


def vocabulary(*modules: ModuleType) -> dict[str, type]:
    """Word -> spec, for every frozen dataclass that the modules export: ``Chunk`` is ``chunk``."""
    specs: Iterable[Any] = (getattr(m, name) for m in modules for name in m.__all__)
    return {_word(s): s for s in specs if isinstance(s, type) and dataclasses.is_dataclass(s)}


def to_yaml(graph: Graph, words: Vocabulary) -> str:
    """The graph in YAML; :func:`from_yaml` reads an equal graph back.

    Raises:
        PipelineError: a step holds something that is not in the vocabulary.
    """
    document: dict[str, Any] = {"steps": [_spelled(node, words) for node in graph.nodes]}
    if graph.dead_letters is not None:
        document["dead_letters"] = _spec("dead_letters", graph.dead_letters, words)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def from_yaml(text: str, words: Vocabulary) -> Graph:
    """The graph that ``text`` spells; not yet checked as a whole.

    Raises:
        PipelineError: not YAML, an unknown verb, word or field, or a value of the wrong type.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PipelineError(f"pipeline: not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        raise PipelineError("pipeline: needs a list `steps:`, each a step such as `read: name`")
    if extra := set(document) - {"steps", "dead_letters"}:
        raise PipelineError(f"pipeline: unknown key {sorted(map(str, extra))[0]!r}")
    dead = document.get("dead_letters")
    return Graph(
        tuple(_read(step, words) for step in document["steps"]),
        None if dead is None else _build("dead_letters", dead, words),
    )


def _spelled(node: Any, words: Vocabulary) -> dict[str, Any]:
    verb, (_, key, held) = next(item for item in VERBS.items() if isinstance(node, item[1][0]))
    step: dict[str, Any] = {verb: node.name}
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if f.name == held:
            step[key] = _spec(node.name, value, words)
        elif f.name != "name" and value != f.default:
            step[f.name] = list(value) if isinstance(value, tuple) else value
    return step


def _spec(step: str, value: Any, words: Vocabulary) -> dict[str, Any]:
    kind: type = type(value)
    word = _word(kind)
    if words.get(word) is not kind:
        raise PipelineError(
            f"step {step!r}: {kind.__name__} has no YAML spelling; "
            f"use one of: {', '.join(sorted(words))}"
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
    values = {k: v for k, v in step.items() if k not in (verbs[0], key)}
    if held:
        if key not in step:
            raise PipelineError(f"step {name!r}: needs `{key}:` with one of its words")
        values[held] = _build(str(name), step[key], words)
    node: Node = _dataclass(str(name), kind, {"name": name, **values}, ready=held)
    return node


def _build(step: str, spelled: Any, words: Vocabulary) -> Any:
    if isinstance(spelled, str):
        spelled = {spelled: {}}
    if not isinstance(spelled, dict) or len(spelled) != 1:
        raise PipelineError(
            f"step {step!r}: expected one word with its fields, got {spelled!r:.200}"
        )
    word, fields = next(iter(spelled.items()))
    if word not in words:
        raise PipelineError(
            f"step {step!r}: unknown word {word!r}; use one of: {', '.join(sorted(words))}"
        )
    if not isinstance(fields or {}, dict):
        raise PipelineError(f"step {step!r}: {word}: expected fields, got {fields!r:.200}")
    return _dataclass(step, words[word], fields or {})


def _dataclass(step: str, kind: Any, values: dict[str, Any], ready: str = "") -> Any:
    known = {f.name for f in dataclasses.fields(kind) if f.init}
    if unknown := set(values) - known:
        raise PipelineError(
            f"step {step!r}: unknown field {sorted(map(str, unknown))[0]!r}; "
            f"it knows: {', '.join(sorted(known))}"
        )
    try:
        typed = {k: v if k == ready else _typed(kind, k, v) for k, v in values.items()}
        return kind(**typed)
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        raise PipelineError(f"step {step!r}: {error}") from error


def _typed(kind: Any, name: str, value: Any) -> Any:
    try:
        return msgspec.convert(value, get_type_hints(kind)[name])
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}, got {value!r:.100}") from error


def _word(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
