"""The YAML form of a graph.

``vocabulary`` maps a word to its dataclass; a Python function has no YAML form. A word may
name any file, server and URL: YAML from a tenant needs a narrower vocabulary.

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
...   - map: chunk
...     input: rows
...     with: {select: {fields: [doc, text]}}
...   - flat_map: json
...     input: chunk
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
import inspect
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, get_origin

import yaml

from sage_flink.common.errors import PipelineError, SageError
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.functions import Filter, Map
from sage_flink.flow.graph import (
    Batch,
    Call,
    FlatMap,
    Graph,
    Node,
    Read,
    Union,
    Write,
    require_graph,
)
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.joins import Join, TemporalJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.nodes import (
    Deduplicate,
    EventTime,
    KeyBy,
    Late,
    ProcessingTime,
    Window,
)
from sage_flink.flow.yaml_fields import (
    check_fields,
    default_of,
    field_in_yaml,
    fields_in_yaml,
    word_of,
)
from sage_flink.flow.yaml_places import Document, within

#: Verb -> node, the YAML key of its spec, and the node's field for the spec.
VERBS: dict[str, tuple[type[Node], str, str]] = {
    "read": (Read, "from", "source"),
    "flat_map": (FlatMap, "with", "function"),
    "map": (FlatMap, "with", "function"),
    "filter": (FlatMap, "with", "function"),
    "map_batches": (MapBatches, "with", "function"),
    "call": (Call, "to", "spec"),
    "batch": (Batch, "", ""),
    "union": (Union, "", ""),
    "event_time": (EventTime, "", ""),
    "processing_time": (ProcessingTime, "", ""),
    "key_by": (KeyBy, "", ""),
    "window": (Window, "", ""),
    "late": (Late, "", ""),
    "join": (Join, "", ""),
    "temporal_join": (TemporalJoin, "", ""),
    "broadcast_join": (BroadcastJoin, "", ""),
    "deduplicate": (Deduplicate, "", ""),
    "changes_only": (ChangesOnly, "", ""),
    "rate_limit": (RateLimit, "", ""),
    "fold": (Fold, "with", "function"),
    "write": (Write, "into", "sink"),
}
#: Verbs with a wrapper around the function of the FlatMap.
WRAPPERS: dict[str, type[Map | Filter]] = {"map": Map, "filter": Filter}
#: Key, or verb with a wrapper -> the methods of which a spec in that place has at least one.
PLACES: dict[str, tuple[str, ...]] = {
    "from": ("records", "flink_source"),
    "with": ("__call__",),
    "map": ("__call__",),
    "filter": ("__call__",),
    "map_batches": ("__call__",),
    "fold": ("__call__",),
    "to": ("request",),
    "into": ("writer", "flink_sink"),
    "dead_letters": ("writer", "flink_sink"),
}
_VERB_AT = {"from": "read", "with": "flat_map", "to": "call", "into": "write"}
Vocabulary = Mapping[str, type]


def vocabulary(*modules: ModuleType) -> dict[str, type]:
    """Word -> spec, for every dataclass that the modules export and a step can take.

    ``Chunk`` is ``chunk``.
    """
    specs: Iterable[Any] = (getattr(m, name) for m in modules for name in m.__all__)
    kinds = (s for s in specs if isinstance(s, type) and dataclasses.is_dataclass(s))
    return {word_of(kind): kind for kind in kinds if any(fits(kind, place) for place in PLACES)}


def to_yaml(graph: Graph, words: Vocabulary) -> str:
    """The graph in YAML; :func:`from_yaml` reads an equal graph back.

    Raises:
        PipelineError: a step's spec is not in the vocabulary.
    """
    steps = [_step(node, words) for node in require_graph(graph).nodes]
    document: dict[str, Any] = {"steps": steps}
    if graph.dead_letters is not None:
        document["dead_letters"] = _spec("pipeline", "dead_letters", graph.dead_letters, words)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def from_yaml(text: str, words: Vocabulary, file: str = "") -> Graph:
    """The graph of the YAML in ``text``; not yet checked as a whole. Errors name its ``file``.

    Raises:
        PipelineError: not YAML, a key that is there twice, an unknown verb, word or field, or a
            value of the wrong type; the message begins with the line.
    """
    document = Document.read(text, file)
    with document.lines_of_errors():
        return _graph(document.value, words)


@contextmanager
def yaml_errors(text: str, file: str = "") -> Iterator[None]:
    """Errors in the block, such as those of a check, name lines of the YAML of their graph.

    Raises:
        PipelineError: the error, each of its lines with the line of the step that it names.
    """
    with Document.read(text, file).lines_of_errors(VERBS):
        yield


def _graph(document: Any, words: Vocabulary) -> Graph:
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        raise PipelineError("pipeline: needs a list `steps:`, each a step such as `read: name`")
    if extra := sorted(map(str, set(document) - {"steps", "dead_letters"})):
        with within(extra[0]):
            raise PipelineError(f"pipeline: unknown key {extra[0]!r}")
    nodes = []
    for number, step in enumerate(document["steps"]):
        with within("steps", number):
            nodes.append(_read(step, words))
    dead = document.get("dead_letters")
    with within("dead_letters"):
        sink = None if dead is None else _build("pipeline", "dead_letters", dead, words)
    return Graph(tuple(nodes), sink)


def _step(node: Any, words: Vocabulary) -> dict[str, Any]:
    verb = verb_of(node)
    _, key, spec_field = VERBS[verb]
    step: dict[str, Any] = {verb: node.name}
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if f.name == spec_field:
            spec = value.function if verb in WRAPPERS else value
            step[key] = _spec(f"step {node.name!r}", place_of_spec(verb, key), spec, words)
        elif f.name != "name" and value != default_of(f):
            step[f.name] = field_in_yaml(node, f.name)
    return step


def verb_of(node: Node) -> str:
    """The verb of the step: that of its node, or of the function that a FlatMap wraps.

    >>> verb_of(FlatMap("f", "in", Filter(len)))
    'filter'
    """
    function = getattr(node, "function", None)
    for verb, wrapper in WRAPPERS.items():
        if isinstance(function, wrapper):
            return verb
    return next(verb for verb, (kind, _, _) in VERBS.items() if isinstance(node, kind))


def place_of_spec(verb: str, key: str) -> str:
    """The place of the spec at ``key`` of a step, one of ``PLACES``."""
    return verb if verb in (*WRAPPERS, "fold", "map_batches") else key


def _spec(where: str, place: str, value: Any, words: Vocabulary) -> dict[str, Any]:
    kind: type = type(value)
    word = word_of(kind)
    if words.get(word) is not kind:
        raise PipelineError(
            f"{where}: {kind.__name__} has no YAML spelling; use one of: {_fitting(place, words)}"
        )
    return {word: fields_in_yaml(value)}


def _read(step: Any, words: Vocabulary) -> Node:
    verbs = [key for key in step if key in VERBS] if isinstance(step, dict) else []
    if len(verbs) != 1:
        raise PipelineError(f"pipeline: a step needs one of {', '.join(VERBS)}, got {step!r:.200}")
    verb = verbs[0]
    kind, key, spec_field = VERBS[verb]
    name = step[verb]
    where = f"step {name!r}"
    values = {k: v for k, v in step.items() if k not in (verb, key)}
    if spec_field:
        place = place_of_spec(verb, key)
        if key not in step:
            raise PipelineError(f"{where}: needs `{key}:` with one of: {_fitting(place, words)}")
        with within(key):
            spec = _build(where, place, step[key], words, key)
        values[spec_field] = WRAPPERS[verb](spec) if verb in WRAPPERS else spec
    node: Node = kind(**check_fields(where, kind, {"name": name, **values}, ready=spec_field))
    return node


def _build(where: str, place: str, spelled: Any, words: Vocabulary, key: str = "") -> Any:
    if isinstance(spelled, str):
        spelled = {spelled: {}}
    if not isinstance(spelled, dict) or len(spelled) != 1:
        raise PipelineError(f"{where}: expected one word with its fields, got {spelled!r:.200}")
    word, fields = next(iter(spelled.items()))
    kind = words.get(word)
    if kind is None or not fits(kind, place):
        flaw = f"`{key or place}:` does not know {word!r}"
        if kind is not None:
            others = [f"`{_VERB_AT.get(at, at)}:`" for at in PLACES if fits(kind, at)]
            flaw = f"{word} is for {' or '.join(others)}, not for `{_VERB_AT.get(place, place)}:`"
        raise PipelineError(f"{where}: {flaw}; use one of: {_fitting(place, words)}")
    if not isinstance(fields or {}, dict):
        raise PipelineError(f"{where}: {word}: expected fields, got {fields!r:.200}")
    with within(word):
        values = check_fields(where, kind, fields or {})
    try:
        return kind(**values)
    except SageError as error:
        raise PipelineError(f"{where}: {error}") from error


def fits(kind: type, place: str) -> bool:
    """Whether a spec of this class can be in that place."""
    if not any(method in vars(base) for base in kind.__mro__ for method in PLACES[place]):
        return False
    return "__call__" not in PLACES[place] or place in _function_places(kind)


def _function_places(kind: Any) -> set[str]:
    """The places of a function, by the parameters and the return annotation of its ``__call__``."""
    signature = inspect.signature(kind.__call__)
    _, *given = signature.parameters.values()
    if len(given) == 2:  # state, record
        return {"fold"}
    if given and (get_origin(given[0].annotation) or given[0].annotation) in (Sequence, list):
        return {"map_batches"}
    returned = signature.return_annotation
    if returned is inspect.Signature.empty or isinstance(returned, str):
        return {"with", *WRAPPERS}
    if returned is bool:
        return {"filter"}
    many = (Iterable, Iterator, Generator, Sequence, list, tuple)
    return {"with"} if (get_origin(returned) or returned) in many else {"map"}


def _fitting(place: str, words: Vocabulary) -> str:
    return ", ".join(sorted(word for word, kind in words.items() if fits(kind, place)))
