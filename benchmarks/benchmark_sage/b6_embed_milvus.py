"""B6: texts embedded by the pool into Milvus, the complete Flink job against a script.

``limit`` is a direct batched client: the same texts, the same engine, the same collection layout,
no Kafka and no Flink. ``sage`` is ``rag_ingest`` from the first message in Kafka to the last
vector in Milvus by a strong count, ``sage_large_bundles`` the same job with ``--bundle-ms 100``.
All sides run interleaved in one run; the start of the job (Python workers, 5-12 s) is not measured
and is reported as ``start_s``.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psutil

import sage_flink as sage
from benchmark_sage.results import Headline, Result, result
from sage_connectors import http_pool
from sage_connectors.kafka_client import delete_topic, feed
from sage_flink.common import Record, Settings, sage_home
from sage_flink.flow.calls.embeddings import embed
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import FlinkRest
from sage_jobs import corpus, rag_ingest
from sage_jobs.rag_ingest import RagIngest

BATCH, REQUESTS = 32, 4
#: A strong count costs the store milliseconds that the limit does not pay, so it is seldom made.
POLL_S = 0.25
CALL = next(n.spec for n in rag_ingest.build().nodes if isinstance(n, sage.flow.Call))
Message = tuple[bytes, bytes]


def run(*, repeats: int, records: int = 2972) -> Result:
    """All sides ``repeats`` times over the Python reference, at most ``records`` chunks.

    The default is four rounds: one takes a quarter of a minute, in which the JVM still compiles.
    """
    messages, chunks = workload(records)
    sides: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    warm = chunks[:BATCH]
    asyncio.run(_direct(warm, _collection()))
    for number in range(repeats):
        for name, side in SIDES.items():
            measured = side(messages, chunks)
            sides[name].append(measured)
            rate = measured["texts_per_s"]
            print(f"repeat {number + 1}/{repeats}  {name:<18} {rate:7.1f} texts/s", flush=True)
    headline = [
        Headline.of(
            f"embed to Milvus through the whole job{words} over a direct batched client",
            [
                ours["texts_per_s"] / direct["texts_per_s"]
                for ours, direct in zip(sides[name], sides["limit"], strict=True)
            ],
            unit="ratio",
            floor=0.85,
            moonshot=0.97,
        )
        for name, words in {"sage": "", "sage_large_bundles": ", 100-ms bundles,"}.items()
    ]
    return result("B6", seed=0, repeats=repeats, sides=dict(sides), headline=headline)


def workload(texts_max: int) -> tuple[list[Message], list[Record]]:
    """Complete documents with at most ``texts_max`` chunks in total, and those chunks.

    The reference is repeated with other ids until the limit is reached.
    """
    nodes = rag_ingest.build().nodes
    ends = next(place for place, node in enumerate(nodes) if node.name == "split")
    graph = sage.flow.Stream(nodes[: ends + 1]).write("chunks", ListSink())
    messages: list[Message] = []
    chunks: list[Record] = []
    for once, document in _again(corpus.python_reference()):
        message = corpus.message({**document, "id": f"{document['id']}/{once}"})
        given = ListSource((Record(id="given", value=message[1]),))
        made = asyncio.run(sage.flow.run(graph, sources={"documents": given})).written["chunks"]
        if len(chunks) + len(made) > texts_max:
            break
        messages.append(message)
        chunks += made
    return messages, chunks


def _again(documents: list[corpus.Document]) -> Iterator[tuple[int, corpus.Document]]:
    """Each document with the number of its round, endlessly."""
    return ((once, document) for once in itertools.count() for document in documents)


def _collection() -> Any:
    return sage.db.collection(f"b6_{uuid.uuid4().hex[:10]}", dim=384)


def _limit(messages: list[Message], chunks: list[Record]) -> dict[str, float]:
    collection = _collection()
    collection.open().close()
    with _Clock() as clock:
        asyncio.run(_direct(chunks, collection))
    return clock.figures(len(chunks))


async def _direct(chunks: list[Record], collection: Any) -> None:
    """Batches of texts, REQUESTS requests in flight, one upsert per batch."""
    writer, pool = collection.writer(), http_pool()
    ahead = asyncio.Semaphore(REQUESTS)
    turn = asyncio.Lock()

    async def batch(records: list[Record]) -> None:
        async with ahead:
            vectors = await embed(pool, "minilm", [CALL.request(r).decode() for r in records])
        rows = [
            r.replace(value={**r.value, "vector": v}) for r, v in zip(records, vectors, strict=True)
        ]
        async with turn:
            assert not await asyncio.to_thread(writer.write, rows)

    await asyncio.gather(*(batch(chunks[at : at + BATCH]) for at in range(0, len(chunks), BATCH)))
    await pool.aclose()
    writer.close()
    store = collection.open()
    assert store.count() == len(chunks)
    store.drop()


def _sage_large_bundles(messages: list[Message], chunks: list[Record]) -> dict[str, float]:
    """For ingestion, where no user waits for a single record: fewer turns of the Python worker."""
    return _sage(messages, chunks, sage.flow.FlinkOptions(bundle_s=0.1))


def _sage(
    messages: list[Message],
    chunks: list[Record],
    options: "sage.flow.FlinkOptions | None" = None,
) -> dict[str, float]:
    collection = _collection()
    config = replace(
        RagIngest(),
        topic=f"{collection.name}.documents",
        dead_letters=f"{collection.name}.dead-letters",
        group=collection.name,
        collection=collection.name,
        bucket=collection.name,
        cache_ttl_s=0,  # every side embeds every text
    )
    rest, store = FlinkRest(Settings.load().flink_url), collection.open()
    began = time.monotonic()
    job_id = sage.flow.submit(rag_ingest.build(config), name=collection.name, options=options)
    warm = corpus.message({"id": "warm", "text": "One record to warm the job up."})
    feed(config.topic, [warm])
    _until(lambda: store.count() == 1)
    start_s = time.monotonic() - began
    try:
        with _Clock() as clock:
            feed(config.topic, messages)
            _until(lambda: store.count() == len(chunks) + 1)
        return {**clock.figures(len(chunks)), "start_s": round(start_s, 2)}
    finally:
        rest.cancel(job_id)
        store.drop()
        bucket: Any = sage.tsdb.bucket(config.bucket).open()
        bucket.drop("chunks")
        delete_topic(config.topic)
        delete_topic(config.dead_letters)


SIDES = {"limit": _limit, "sage": _sage, "sage_large_bundles": _sage_large_bundles}


class _Clock:
    """Wall time, and CPU time of every process of the stack and of this one."""

    def __enter__(self) -> "_Clock":
        self.cpu, self.began = _cpu_s(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.monotonic() - self.began, _cpu_s() - self.cpu

    def figures(self, texts: int) -> dict[str, float]:
        return {
            "texts": texts,
            "seconds": round(self.seconds, 3),
            "texts_per_s": round(texts / self.seconds, 2),
            "cpu_s_per_1000": round(self.cpu / texts * 1000, 2),
        }


def _cpu_s() -> float:
    total = 0.0
    for process in [psutil.Process(), *stack.processes(sage_home())]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _until(condition: Any, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {seconds:g} s; see `sage ps`")
        time.sleep(POLL_S)
