"""After any upserts and deletes, the index holds exactly the last version of each document."""

import asyncio
import json
import uuid
from dataclasses import dataclass

from delete_shapes import SHAPED_LIKE_DELETES
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.db import collection
from sage_flink.db import memory as vectors_in_memory
from sage_flink.flow import BatchLimits
from sage_flink.flow.call_ports import Reply
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference import EchoPool
from sage_flink.inference.memory import DIM
from sage_flink.operators import Chunk, DecodeDocument
from sage_jobs import rag_ingest
from sage_jobs.rag_ingest import RagIngest

CONFIG = RagIngest(tokens_max=4, overlap=1)
WORDS = ("oak", "elm", "poison", "ash")


@dataclass(frozen=True)
class PoisonPool:
    """A pool that permanently refuses texts with the word ``poison``, and is slow with others."""

    async def post(self, path, body, headers):
        if b"poison" in body:
            return Reply(400, b'{"error": {"message": "not this"}}')
        await asyncio.sleep(len(body) % 3 / 10_000)
        return await EchoPool().post(path, body, headers)

    def stream(self, path, body, headers):
        return EchoPool().stream(path, body, headers)


def message(offset, doc, op):
    match op:
        case "tombstone":
            key, value = doc.encode(), None
        case "delete":
            key, value = None, json.dumps({"id": doc, "op": "delete"}).encode()
        case words:
            key, value = None, json.dumps({"id": doc, "text": " ".join(words)}).encode()
    place = f"documents/0/{offset}"
    return Record(id=place, value=value, timestamp_ms=offset, key=key, origin=place)


def ingest(messages, sink):
    return asyncio.run(
        sage.flow.run(
            rag_ingest.build(CONFIG),
            pool=PoisonPool(),
            sources={"documents": ListSource(tuple(messages))},
            sinks={"vectors": sink, "telemetry": ListSink()},
        )
    )


def rows_of(messages):
    """The rows of the last message of each document: text and version by document and ordinal."""
    last = {}
    for message_ in messages:
        (decoded,) = DecodeDocument()(message_)
        last[decoded.id] = decoded
    found = {}
    for decoded in (d for d in last.values() if d.kind == "upsert"):
        *chunks, _ = Chunk(CONFIG.tokens_max, CONFIG.overlap)(decoded)
        kept = [chunk for chunk in chunks if "poison" not in chunk["text"]]
        found.update({(c["doc"], c["ordinal"]): (c["text"], c["version"]) for c in kept})
    return found


TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=20).map(tuple)
OPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", 'c"\\']), TEXTS | st.sampled_from(["tombstone", "delete"])
    ),
    max_size=10,
)


@settings(deadline=None, max_examples=30)
@given(ops=OPS, items_max=st.integers(1, 9), data=st.data())
def test_the_index_holds_exactly_the_last_version_of_each_document(ops, items_max, data):
    messages = [message(offset, *op) for offset, op in enumerate(ops)]
    crash = data.draw(st.integers(0, len(ops)), label="read before the crash")
    replay = data.draw(st.integers(0, crash), label="read again from")
    limits = BatchLimits(items_max=items_max)
    sink = collection(f"t{uuid.uuid4().hex}", dim=DIM, store="memory", batch=limits)

    ingest(messages[:crash], sink)
    ingest(messages[replay:], sink)

    hits = sink.open().search([1.0] * DIM, 1000)
    vectors_in_memory.forget(sink.name)
    held = {(h.fields["doc"], h.fields["ordinal"]): h.fields for h in hits}
    assert len(held) == len(hits)
    assert {k: (f["text"], f["version"]) for k, f in held.items()} == rows_of(messages)


def test_a_replay_and_a_second_feed_change_no_count_and_telemetry_sees_chunks_alone():
    texts = [("oak",) * 20, ("elm",) * 9]
    messages = [message(n, f"d{n}", text) for n, text in enumerate(texts)]
    again = [message(n + 2, f"d{n}", text) for n, text in enumerate(texts)]
    sink = collection(f"t{uuid.uuid4().hex}", dim=DIM, store="memory")
    counts = []

    for part in (messages, messages, again, [message(9, "d0", "tombstone")]):
        outcome = ingest(part, sink)
        points, rows = outcome.written["telemetry"], outcome.written["vectors"]
        counts.append((len(rows), len(points), sink.open().count()))
        assert outcome.failed == []

    vectors_in_memory.forget(sink.name)
    chunks = counts[0][0]
    assert chunks > 4
    assert counts == [(chunks, chunks, chunks)] * 3 + [(0, 0, len(rows_of([messages[1]])))]


def test_documents_and_questions_shaped_like_deletes_remove_no_row():
    texts = [
        shape if isinstance(shape, str) else json.dumps(shape) for shape in SHAPED_LIKE_DELETES
    ]
    documents = [{"id": "r1", "text": "oak elm"}]
    documents += [{"id": f"s{n}", "text": text} for n, text in enumerate(texts)]
    documents += [
        {"id": f"t{n}", "text": "ash", **shape, "op": "upsert"}
        for n, shape in enumerate(SHAPED_LIKE_DELETES)
        if isinstance(shape, dict) and "id" not in shape
    ]
    bare = [json.dumps(s).encode() for s in SHAPED_LIKE_DELETES if not isinstance(s, dict)]
    values = [*(json.dumps(document).encode() for document in documents), *bare]
    messages = [
        Record(f"documents/0/{n}", value, n, b"r1", {}, f"documents/0/{n}")
        for n, value in enumerate(values)
    ]
    sink = collection(f"t{uuid.uuid4().hex}", dim=DIM, store="memory")

    outcome = ingest(messages, sink)

    stored = {hit.fields["doc"] for hit in sink.open().search([1.0] * DIM, 1000)}
    vectors_in_memory.forget(sink.name)
    assert stored == {document["id"] for document in documents}
    assert len(outcome.failed) == len(bare)
