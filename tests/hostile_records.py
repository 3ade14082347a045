"""Hostile messages, and a pipeline with all operators that each of them goes through.

A message goes one of five routes, so that each id has one end: a dead letter or the output of its
route (of a document: its chunks).
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import sage_flink as sage
from sage_flink.common import Record, Rejected
from sage_flink.flow import Graph, Stream
from sage_flink.operators import DecodeDocument, chunk

#: How many there are, and which; the whole form has 2,000.
COUNT = int(os.environ.get("SAGE_HOSTILE_RECORDS", "200"))
SEED = int(os.environ.get("SAGE_HOSTILE_SEED", "0"))
ROUTES = ("answers", "rows", "points", "documents", "topic")
DIM = 64  # of the reference pool

valid_texts = st.text(st.characters(codec="utf-8"))
odd_texts = st.sampled_from(["", " ", "\x00", "a\\", "\r\n", "_x", "time", "id", "vector"])
texts = valid_texts | odd_texts
surrogates = st.text(st.characters())
numbers = st.integers() | st.integers(-(2**70), 2**70) | st.floats()


def nested(plain: st.SearchStrategy[Any], names: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values made of ``plain`` ones."""
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=5),
        max_leaves=10,
    )


json_values = nested(st.none() | st.booleans() | numbers | texts | surrogates, texts | surrogates)
packed_values = nested(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | texts
    | st.binary()
    | st.datetimes(timezones=st.timezones()),
    texts | st.integers(-(2**63), 2**63),
)
rows = st.builds(
    lambda text, more: {**more, "text": text},
    texts.filter(str.strip),
    st.dictionaries(texts, packed_values, max_size=4),
)
points = st.fixed_dictionaries(
    {
        "measurement": st.just("m") | texts,
        "fields": st.dictionaries(st.just("v") | texts, numbers | packed_values, max_size=3),
    },
    optional={
        "tags": st.dictionaries(texts, packed_values, max_size=3) | packed_values,
        "timestamp_ns": st.integers(-(2**63), 2**63 - 1) | packed_values,
    },
)
documents = st.fixed_dictionaries(
    {"id": texts, "text": texts | st.just("a word " * 300)},
    optional={
        "title": packed_values | texts,
        "modified_ms": numbers | st.none(),
        "op": texts | st.just("upsert"),
    },
)


def packed(value: Any) -> bytes:
    """In MessagePack; with a number of more than 64 bits in JSON."""
    try:
        return b"M" + msgspec.msgpack.encode(value)
    except OverflowError:
        return b"J" + json.dumps(value, default=repr).encode()


#: Between the two, the rest of the stack decides (1,000 frames in all), and it differs by target.
depths = st.integers(1, 500) | st.integers(1_100, 100_000)
anything = (
    st.binary(max_size=300).map(lambda raw: b"R" + raw)
    | st.binary(max_size=300).map(lambda raw: b"M" + raw)
    | st.binary(max_size=300).map(lambda raw: b"J" + raw)
    | json_values.map(lambda value: b"J" + json.dumps(value).encode())
    | packed_values.map(packed)
    | depths.map(lambda depth: b"J" + b"[" * depth + b"]" * depth)
    | st.integers(1, 1 << 20).map(lambda size: b"R" + b"\xff" * size)
)
messages = st.tuples(
    st.tuples(st.sampled_from(ROUTES), anything)
    | st.tuples(st.just("rows"), rows.map(packed))
    | st.tuples(st.just("points"), points.map(packed))
    | st.tuples(st.just("documents"), documents.map(packed)),
    st.none() | st.binary(max_size=20),
    st.integers(-(2**63), 2**63 - 1) | st.just(0),
    st.dictionaries(valid_texts, st.binary(max_size=50), max_size=3),
)


#: One message a route that reaches its output, whatever the random ones are.
HARMLESS: dict[str, bytes] = {
    "answers": packed("a question"),
    "rows": packed({"text": "a text"}),
    "points": packed({"measurement": "m", "fields": {"v": 1.0}}),
    "documents": packed({"id": "d", "text": "a text"}),
    "topic": b"R" + b"bytes",
}


def hostile_records(count: int = COUNT) -> tuple[Record, ...]:
    """``count`` records; ids ``r0``, ``r1``, ...

    The first five are harmless. The others depend on ``SEED``, and on the modules that are loaded,
    whose constants hypothesis tries too.
    """
    made: list[Any] = [((route, value), None, 0, {}) for route, value in HARMLESS.items()]
    for start in range(SEED, SEED + 100):

        @seed(start)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(messages)
        def collect(message: Any) -> None:
            made.append(message)

        collect()
        if len(made) >= count:
            break
    return tuple(
        Record(f"r{n}", value, time_ms, key, {**headers, "route": route.encode()}, f"r{n}")
        for n, ((route, value), key, time_ms, headers) in enumerate(made[:count])
    )


@dataclass(frozen=True)
class Decode:
    """The record with what its message holds as its value. Each start is noted in ``log``."""

    log: str

    def open(self, context: Any) -> None:
        with Path(self.log).open("a") as file:
            file.write(f"{context.step}\n")

    def __call__(self, record: Record) -> Iterable[Record]:
        kind, content = record.value[:1], record.value[1:]
        if kind == b"J":
            value = json.loads(content.decode("utf-8", "surrogatepass"))
        else:
            value = msgspec.msgpack.decode(content) if kind == b"M" else content
        return (record.replace(value=value),)


@dataclass(frozen=True)
class OnRoute:
    route: str

    def __call__(self, record: Record) -> bool:
        return record.headers["route"] == self.route.encode()


@dataclass(frozen=True)
class Ask:
    """Sends the value as the question; the answer is the engine's content."""

    mode: Literal["post", "embed"] = "post"
    model: str = "m"
    path: str = "/v1/chat/completions"

    def request(self, record: Record) -> bytes:
        question = {"role": "user", "content": record.value}
        return json.dumps({"model": self.model, "messages": [question]}).encode()

    def answer(self, record: Record, body: bytes) -> Record:
        return record.replace(value=json.loads(body)["choices"][0]["message"]["content"])


@dataclass(frozen=True)
class KeepDeletes:
    """A delete as an upsert: a document without a word has no chunk, only this."""

    supports_deletes: ClassVar[bool] = True

    def __call__(self, record: Record) -> Iterable[Record]:
        return (record.replace(kind="upsert", document="", version=""),)


def as_document(record: Record) -> Iterable[Record]:
    """The record as the message of a document."""
    if isinstance(record.value, bytes):
        return (record,)
    return (record.replace(value=json.dumps(record.value).encode()),)


@dataclass(frozen=True)
class Ends:
    """The sinks of the routes."""

    answers: Any
    rows: Any
    points: Any
    documents: Any
    topic: Any
    dead_letters: Any = field(default=None)


def hostile_graph(source: Any, ends: Ends, log: str) -> Graph:
    """The pipeline; ``log`` gets a line at each start of its first step."""
    limits: dict[str, Any] = {
        "capacity": 16,
        "timeout_s": 60,
        "retry": sage.flow.Retry(attempts_max=1),
    }
    decoded = sage.flow.read("in", source).flat_map("decode", Decode(log))

    def route(name: str) -> Stream:
        return decoded.filter(f"to-{name}", OnRoute(name))

    embedding = sage.embed(model="m", dim=DIM)
    split = (
        route("documents")
        .flat_map("as-document", as_document)
        .flat_map("read-document", DecodeUpsert())
        .flat_map("split", chunk(tokens_max=50, overlap=5))
        .flat_map("rows-of-document", KeepDeletes())
    )
    return sage.flow.pipeline(
        route("answers").call("ask", Ask(), **limits).write("answers", ends.answers),
        route("rows").call("embed", embedding, **limits).write("rows", ends.rows),
        route("points").write("points", ends.points),
        split.write("documents", ends.documents),
        route("topic").write("topic", ends.topic),
    ).dead_letters_to(ends.dead_letters)


@dataclass(frozen=True)
class DecodeUpsert:
    """A document under the id of its message, which several messages may share; no delete."""

    decode: DecodeDocument = field(default_factory=DecodeDocument)

    def __call__(self, record: Record) -> Iterable[Record]:
        (made,) = self.decode(record)
        if made.kind == "delete":
            raise Rejected("a delete")
        return (made.replace(id=record.id),)


def unbalanced(records: Iterable[Record], origins: Iterable[str], ids: Iterable[str]) -> list[str]:
    """Records with no end, by id, and ids with several ends."""
    lost = {record.id for record in records} - set(origins)
    return [*sorted(lost), *(id_ for id_, times in Counter(ids).items() if times > 1)]
