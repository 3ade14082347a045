"""A graph as text or as a Mermaid flowchart.

>>> from sage_flink.flow.lists import ListSink, ListSource
>>> from sage_flink.flow.stream import read
>>> print(explain(read("in", ListSource(())).write("out", ListSink())))
in         read      ListSource(rows=())
out.batch  batch     <- in; 500 items, 4000000 bytes, 0.05 s
out        write     <- out.batch; ListSink()
"""

import dataclasses
from typing import Any, Literal, assert_never, get_args

from sage_flink.common.validation import require
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.deletes import in_order
from sage_flink.flow.formats import with_formats
from sage_flink.flow.functions import Filter, Map
from sage_flink.flow.graph import (
    DEAD_LETTERS,
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
from sage_flink.flow.stateful.joins import Join, TemporalJoin, TimeJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.nodes import (
    Deduplicate,
    EventTime,
    KeyBy,
    Late,
    ProcessingTime,
    Window,
)
from sage_flink.flow.stateful.windows import Early
from sage_flink.flow.yaml_fields import default_of
from sage_flink.flow.yaml_form import verb_of

Form = Literal["text", "mermaid"]
#: Steps that may refuse a record.
DEAD_LETTERING = (
    FlatMap
    | MapBatches
    | Call
    | EventTime
    | KeyBy
    | Window
    | TimeJoin
    | BroadcastJoin
    | ChangesOnly
    | RateLimit
    | Fold
)
#: How much of one argument a drawing shows.
CHARS_MAX = 40
#: Width of the column of verbs, where no longer verb is used.
VERB_CHARS = 8


def explain(graph: Graph, form: Form = "text") -> str:
    """The graph as text with one line a step, or as a Mermaid flowchart.

    Raises:
        PipelineError: the form is unknown, or the graph does not end in a sink.
    """
    require(form in get_args(Form), "explain", "form", " or ".join(map(repr, get_args(Form))), form)
    ready = in_order(with_formats(require_graph(graph)))
    return _mermaid(ready) if form == "mermaid" else _text(ready)


def _text(graph: Graph) -> str:
    ends = [DEAD_LETTERS] if graph.dead_letters is not None else []
    width = max(map(len, [*(node.name for node in graph.nodes), *ends]), default=0)
    verbs = max((len(verb_of(node)) for node in graph.nodes), default=0)
    verbs = max(verbs, VERB_CHARS)
    rows = [
        f"{n.name:<{width}}  {verb_of(n):<{verbs}}  {_line(graph, n)}".rstrip() for n in graph.nodes
    ]
    if graph.dead_letters is not None:
        rows.append(
            f"{DEAD_LETTERS:<{width}}  {'write':<{verbs}}  <- every step; "
            f"{_label(graph.dead_letters)}"
        )
    return "\n".join(rows)


def _mermaid(graph: Graph) -> str:
    numbers = {node.name: f"s{number}" for number, node in enumerate(graph.nodes)}
    rows = ["flowchart LR"]
    for node in graph.nodes:
        left, right = ("[(", ")]") if isinstance(node, Read | Write) else ("[", "]")
        rows.append(f'  {numbers[node.name]}{left}"{_escape(node.name)}"{right}')
    rows += [f"  {numbers[i]} --> {numbers[n.name]}" for n in graph.nodes for i in n.inputs]
    if graph.dead_letters is not None:
        rows.append(f'  failed[("{DEAD_LETTERS}: {_escape(_label(graph.dead_letters))}")]')
        rows += [
            f"  {numbers[n.name]} -.-> failed" for n in graph.nodes if isinstance(n, DEAD_LETTERING)
        ]
    return "\n".join(rows)


def _line(graph: Graph, node: Node) -> str:
    return "; ".join(part for part in (_from(node), _details(graph, node)) if part)


def _from(node: Node) -> str:
    return f"<- {', '.join(node.inputs)}" if node.inputs else ""


def _details(graph: Graph, node: Node) -> str:
    match node:
        case Read(source=end) | Write(sink=end):
            return _label(end)
        case FlatMap(function=Map(function) | Filter(function) | function):
            return _label(function)
        case MapBatches():
            return f"{_label(node.function)}; {node.items_max} items, {node.linger_s:g} s"
        case Call():
            return _call(node)
        case Batch():
            return f"{node.items_max} items, {node.bytes_max} bytes, {node.linger_s:g} s"
        case Union() | Late():
            return ""
        case EventTime():
            time = f"{node.field} in {node.unit}" if node.field else "the record's time"
            return f"{time}; {node.out_of_order_s:g} s out of order, idle after {node.idle_s:g} s"
        case ProcessingTime():
            return "the clock"
        case KeyBy():
            return node.field
        case Window():
            return _window(graph, node)
        case Join() | TemporalJoin():
            return _join(graph, node)
        case BroadcastJoin():
            which = f"the row that {node.field} names" if node.field else "all rows"
            return f"{which} of {node.right} into {node.output_field}; changes at a checkpoint"
        case Deduplicate():
            return f"by {node.by}, within {node.within_s:g} s"
        case ChangesOnly():
            after = "" if node.ttl_s is None else f", or after {node.ttl_s:g} s"
            return f"changes of {node.field or 'the value'}{after}"
        case RateLimit():
            over = {"drop": "dropped", "dead_letter": "dead letters"}[node.over]
            return f"{node.records_max} a key in {node.per_s:g} s; others: {over}"
        case Fold():
            return _fold(node)
        case _:
            assert_never(node)


def _fold(node: Fold) -> str:
    kept = "" if node.ttl_s is None else f", kept for {node.ttl_s:g} s"
    return f"{_label(node.function)} from {_short(node.initial)}{kept}"


def _call(node: Call) -> str:
    order = "ordered" if node.ordered else "unordered"
    calls = f"{node.capacity} in flight, {node.timeout_s:g} s, {order}"
    merging = [_label(node.merging)] if node.merging else []
    cached = [f"answers up to {node.cache_ttl_s} s old"] if node.cache_ttl_s else []
    return "; ".join([_label(node.spec), calls, *merging, *cached])


def _window(graph: Graph, node: Window) -> str:
    results = ", ".join(f"{name}={_label(spec)}" for name, spec in node.aggregates.items())
    early = f"; {_early(node.early)}" if node.early else ""
    after = f" after {node.lateness_s:g} s" if node.lateness_s else ""
    late = f"; late records{after}: {_late(graph, node)}" if node.is_timed else ""
    return f"{_label(node.windows)}; {results}{early}{late}"


def _early(early: Early) -> str:
    every = f"{early.every_s:g} s" if early.every_s else f"{early.every_records} records"
    return f"early results every {every}"


def _join(graph: Graph, node: TimeJoin) -> str:
    if isinstance(node, TemporalJoin):
        valid = f"the version of {node.right} at the time of {node.left}"
        return f"{node.how}; {valid}; late records: {_late(graph, node)}"
    before_s, after_s = node.within_s
    within = f"{node.right} from {before_s:g} s before {node.left} to {after_s:g} s after it"
    similar = f"{_label(node.similar)}; " if node.similar else ""
    return f"{node.how}; {within}; {similar}late records: {_late(graph, node)}"


def _late(graph: Graph, node: Window | TimeJoin) -> str:
    late = [user.name for user in graph.users(node.name) if isinstance(user, Late)]
    return f"to {late[0]}" if late else {"drop": "dropped"}.get(node.late, "dead letters")


def _label(thing: Any) -> str:
    if not dataclasses.is_dataclass(thing) or isinstance(thing, type):
        return str(getattr(thing, "__qualname__", type(thing).__name__))
    arguments = [
        f"{f.name}={_short(value)}"
        for f in dataclasses.fields(thing)
        if f.init and f.compare and (value := getattr(thing, f.name)) != default_of(f)
    ]
    return f"{type(thing).__name__}({', '.join(arguments)})"


def _short(value: Any) -> str:
    if isinstance(value, tuple) and any(map(callable, value)):
        text = f"({', '.join(map(_label, value))})"
    else:
        text = _label(value) if callable(value) or dataclasses.is_dataclass(value) else repr(value)
    return text if len(text) <= CHARS_MAX else f"{text[: CHARS_MAX - 3]}..."


def _escape(text: str) -> str:
    return text.replace('"', "#quot;")
