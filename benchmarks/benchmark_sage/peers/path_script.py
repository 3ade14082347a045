"""Limit of B12: ``rag_ingest`` as one thread of Python, at least once, without dead letters.

    python -m benchmark_sage.peers.path_script TOPIC NAME ENGINE_URL

The same decoder, tokenizer, engine, collection and bucket (both called NAME) as the job has. It
reads the topic from its beginning to its present end.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

import httpx

import sage_flink as sage
from sage_connectors.kafka_client import drain
from sage_flink.common import Record
from sage_flink.flow import Call, FlatMap
from sage_flink.flow.calls import embeddings
from sage_flink.flow.lifecycle import open_copy
from sage_flink.flow.ports import OpenContext
from sage_flink.flow.steps import flat_map
from sage_jobs import rag_ingest

TEXTS, ROWS = 64, 512
NODES = rag_ingest.build().by_name


def main(topic: str, name: str, url: str) -> None:
    """Embed and store all documents of the topic."""
    call = NODES["embed"]
    assert isinstance(call, Call)
    collection = sage.db.collection(name, dim=384).writer()
    bucket = sage.tsdb.bucket(name).writer()
    measure = open_step("measure")
    rows: list[Record] = []
    with httpx.Client(base_url=url, timeout=60) as engine:
        for chunks in in_batches(chunks_of(topic), TEXTS):
            texts = [call.spec.request(chunk).decode() for chunk in chunks]
            body = embeddings.request(call.spec.model, texts)
            reply = engine.post(call.spec.path, content=body).raise_for_status()
            vectors = embeddings.read(call.spec.model, reply.content, len(texts))
            rows += [
                call.spec.answer(chunk, vector)
                for chunk, vector in zip(chunks, vectors, strict=True)
                if isinstance(vector, bytes)
            ]
            if len(rows) >= ROWS or len(chunks) < TEXTS:
                collection.write(rows)
                bucket.write([point for row in rows for point in run_step(measure, row)])
                rows = []
    collection.close()
    bucket.close()


def chunks_of(topic: str) -> Iterator[Record]:
    """The chunks of all documents, in order."""
    decode, split = open_step("decode"), open_step("split")
    for message in drain(topic):
        for document in run_step(decode, message):
            yield from run_step(split, document)


def run_step(step: FlatMap, record: Record) -> list[Record]:
    """The records that the step makes; what it refuses is left out."""
    return [out for out in flat_map(step, record) if isinstance(out, Record)]


def open_step(step: str) -> FlatMap:
    """The step of the job, with its function opened."""
    node = NODES[step]
    assert isinstance(node, FlatMap)
    return replace(node, function=open_copy(node.function, OpenContext("script", step, 0, 1)))


def in_batches(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """Lists of ``size`` records; the last one is shorter, and may be empty."""
    batch: list[Record] = []
    for record in records:
        if record.kind == "upsert":
            batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


if __name__ == "__main__":
    main(*sys.argv[1:])
