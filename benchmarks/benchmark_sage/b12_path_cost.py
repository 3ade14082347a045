"""B12: what the stream itself costs: ``rag_ingest`` with an engine that answers at once.

``script`` is the limit: one thread of Python with the same decoder, tokenizer, engine, Milvus and
InfluxDB, at least once, without dead letters. ``sage`` is the job with exactly-once state, dead
letters and telemetry, at parallelism 1 and 2. The topic is filled before; a side is measured from
the moment that a tenth of the chunks is stored to the last one, so its start does not count.
"""

import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil

import sage_flink as sage
from benchmark_sage.mock_engine import mock_engine
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import Headline, Result, result
from benchmark_sage.usage import Usage
from sage_connectors.kafka_client import delete_topic, ensure_topic, feed
from sage_flink.common import Settings, sage_home
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import FlinkRest
from sage_jobs import corpus, rag_ingest
from sage_jobs.rag_ingest import RagIngest

WORDS, PARTITIONS, DIM, LIMIT_S = 80, 4, 384, 600.0
#: The share of the chunks after which a side is warm.
WARM = 0.1
#: A strong count costs the store milliseconds, so it is seldom made.
POLL_S = 0.5
Row = dict[str, Any]


def run(*, repeats: int, records: int = 40_000) -> Result:
    """Every side ``repeats`` times, interleaved, over ``records`` documents."""
    topic = f"b12-{uuid.uuid4().hex[:8]}"
    rows: dict[str, list[Row]] = {side: [] for side in SIDES}
    pace = Pace([20.0 + records / 1000] * repeats * len(SIDES))
    ensure_topic(topic, PARTITIONS)
    try:
        feed(topic, documents(records))
        for number in range(repeats):
            for side in SIDES:
                with mock_engine("none", dim=DIM) as engine:
                    row = attempt(run_side, side, topic, records, engine.url)
                rows[side].append(row)
                pace.report(f"repeat {number + 1}/{repeats}  {side:<8}", row)
    finally:
        delete_topic(topic)
    return result("B12", seed=0, repeats=repeats, sides=dict(rows), headline=headline(rows))


def documents(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Documents of 80 words, each one chunk."""
    words = [word for document in corpus.python_reference() for word in document["text"].split()]
    chosen = random.Random(0)
    for number in range(count):
        text = " ".join(chosen.choices(words, k=WORDS))[:900]
        yield corpus.message({"id": f"d{number}", "text": text})


def run_side(side: str, topic: str, count: int, url: str) -> Row:
    """Documents a second of one side, and its CPU time."""
    name = f"b12_{uuid.uuid4().hex[:10]}"
    store: Any = sage.db.collection(name, dim=DIM).open()
    bucket: Any = sage.tsdb.bucket(name).open()
    try:
        with SIDES[side](topic, name, url) as own:
            warm, warm_at = _wait_for(store, round(WARM * count))
            with Usage([*own, *stack.processes(sage_home())]) as usage:
                whole, whole_at = _wait_for(store, count)
        cpu = usage.figures(warm_at, whole_at, whole - warm)["cpu_s_per_1000"]
    finally:
        store.drop()
        bucket.drop("chunks")
    rate = (whole - warm) / (whole_at - warm_at)
    return {"documents_per_s": round(rate), "cpu_s_per_1000": cpu}


def _wait_for(store: Any, count: int) -> tuple[int, float]:
    """The number of chunks that are stored, ``count`` or more, and when it was read."""
    deadline = time.monotonic() + LIMIT_S
    while (stored := store.count()) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{stored} of {count} chunks after {LIMIT_S:g} s; see `sage ps`")
        time.sleep(POLL_S)
    return stored, time.time()


@contextmanager
def _script(topic: str, name: str, url: str) -> Iterator[list[psutil.Process]]:
    command = [sys.executable, "-m", "benchmark_sage.peers.path_script", topic, name, url]
    with subprocess.Popen(command) as process:
        yield [psutil.Process(process.pid)]


@contextmanager
def _sage(topic: str, name: str, url: str, *, parallelism: int) -> Iterator[list[psutil.Process]]:
    config = RagIngest(
        topic=topic,
        group=name,
        collection=name,
        bucket=name,
        dead_letters=f"{name}.dead-letters",
        cache_ttl_s=0,
    )
    settings = Settings.load().model_copy(update={"gateway_url": url})
    options = sage.flow.FlinkOptions(parallelism=parallelism)
    with FlinkRest(settings.flink_url) as rest:
        graph = rag_ingest.build(config)
        job_id = sage.flow.submit(graph, name=name, options=options, settings=settings)
        try:
            yield []
        finally:
            rest.cancel(job_id)
            delete_topic(config.dead_letters)


#: The limit first; each runs in a block, which returns the processes other than those of the stack.
SIDES: dict[str, Callable[..., Any]] = {
    "script": _script,
    "sage": partial(_sage, parallelism=1),
    "sage_2": partial(_sage, parallelism=2),
}


def headline(rows: dict[str, list[Row]]) -> list[Headline]:
    """Documents a second over those of the script, in the same repeat."""
    found = []
    for side, words, floor in (("sage", "", 0.7), ("sage_2", " at parallelism 2", 1.2)):
        ratios = [
            ours["documents_per_s"] / limit["documents_per_s"]
            for ours, limit in zip(rows[side], rows["script"], strict=True)
            if "error" not in ours and "error" not in limit
        ]
        if ratios:
            metric = f"documents through the whole path{words} over one thread of Python"
            made = Headline.of(metric, ratios, unit="ratio", floor=floor, moonshot=floor + 0.5)
            found.append(made)
    return found
