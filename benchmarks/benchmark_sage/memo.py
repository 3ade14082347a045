"""memo: which texts are embedded again when one paragraph of each document changes.

The same chunks go through ``rag_ingest`` on the local stack, LangChain's indexing API and
CocoIndex: a corpus, its second version with one changed paragraph in each document, then a fifth of
the documents once more under other ids. ``sage`` also reads the whole topic into another collection
by another job. The figure is how many texts are embedded, over how many chunks are new.
"""

import json
import random
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

import sage_flink as sage
from benchmark_sage.proxies import environment
from benchmark_sage.recovery.cluster import until
from benchmark_sage.results import Headline, Result, result
from sage_connectors.kafka_client import delete_topic, ensure_topic, feed
from sage_flink.common import ConfigError, Record, Settings, StackError
from sage_flink.operators import DecodeDocument, chunk
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.job_accounting import job_balance
from sage_jobs import corpus, rag_ingest
from sage_jobs.rag_ingest import RagIngest

PARAGRAPHS, WAIT_S = 8, 600.0
EMBEDDED = ("miss", "unkept")
METRIC = "sage_gateway_embedding_cache_texts_total"
Documents = dict[str, list[str]]


def run(*, repeats: int, records: int = 1_000, peers: tuple[str, ...] | None = None) -> Result:
    """All sides ``repeats`` times over ``records`` documents of eight paragraphs."""
    sides: dict[str, list[dict[str, Any]]] = {}
    for number in range(repeats):
        versions = corpora(records, seed=number)
        chunked = [chunks_of(version) for version in versions]
        new = new_chunks(chunked)
        measured = {"sage": _sage(versions)}
        for peer in ("langchain", "cocoindex") if peers is None else peers:
            measured[peer] = _peer(peer, chunked)
        for side, counts in measured.items():
            row = {"new_chunks": new, "chunks": [sum(map(len, c.values())) for c in chunked]}
            sides.setdefault(side, []).append({**row, **counts})
            print(f"repeat {number + 1}/{repeats}  {side:<10} {counts}", flush=True)
    changed = [row["embedded"][1] / row["new_chunks"][1] for row in sides["sage"]]
    headline = [
        Headline.of(
            "texts embedded over changed chunks, one paragraph of each document changed",
            changed,
            unit="ratio",
            floor=1.1,
            moonshot=1.0,
            better="lower",
        )
    ]
    return result("memo", seed=0, repeats=repeats, sides=dict(sides), headline=headline)


def corpora(documents: int, *, seed: int) -> list[Documents]:
    """The versions: each document's paragraphs by its id. No text is of an earlier run."""
    chance, stamp = random.Random(seed), uuid.uuid4().hex[:8]
    texts = [
        paragraph
        for document in corpus.python_reference()
        for paragraph in document["text"].split("\n\n")
        if len(paragraph.split()) > 20
    ]
    first = {
        f"{stamp}-{n}": [
            f"{stamp} {n} {i} {' '.join(chance.choice(texts).split()[:60])}"
            for i in range(PARAGRAPHS)
        ]
        for n in range(documents)
    }
    second = {name: list(paragraphs) for name, paragraphs in first.items()}
    for paragraphs in second.values():
        place = chance.randrange(PARAGRAPHS)
        paragraphs[place] = f"Revised. {paragraphs[place]}"
    copies = {f"{name}-copy": second[name] for name in list(second)[: documents // 5]}
    return [first, second, second | copies]


def chunks_of(documents: Documents) -> Documents:
    """The chunks of each document, as ``rag_ingest`` splits it."""
    config = RagIngest()
    split = chunk(tokens_max=config.tokens_max, overlap=config.overlap)
    decode = DecodeDocument()
    found: Documents = {}
    for name, (_, message) in zip(documents, messages(documents), strict=True):
        [record] = decode(Record(id=name, value=message))
        found[name] = [made["text"] for made in split(record) if not isinstance(made, Record)]
    return found


def messages(documents: Documents) -> Iterator[tuple[bytes, bytes]]:
    """The documents as messages of the topic, all under one title."""
    for name, paragraphs in documents.items():
        yield corpus.message({"id": name, "title": "memo", "text": "\n\n".join(paragraphs)})


def new_chunks(versions: list[Documents]) -> list[int]:
    """How many different chunks of each version no version before had."""
    seen: set[str] = set()
    counts = []
    for version in versions:
        texts = {text for chunks in version.values() for text in chunks}
        counts.append(len(texts - seen))
        seen |= texts
    return counts


def _peer(name: str, versions: list[Documents]) -> dict[str, Any]:
    script = Path(__file__).with_name("peers") / "indexers.py"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "corpus.json"
        file.write_text(json.dumps(versions))
        try:
            commands = environment("indexers")
            line = [str(part) for part in (commands / "python", script, name, file, folder)]
            done = subprocess.run(line, check=True, capture_output=True, text=True, timeout=600)
        except (ConfigError, subprocess.SubprocessError) as error:
            return {"error": f"{error}\n{getattr(error, 'stderr', '') or ''}"[-2000:]}
    return {"embedded": json.loads(done.stdout.splitlines()[-1])}


def _sage(versions: list[Documents]) -> dict[str, Any]:
    name = f"memo{uuid.uuid4().hex[:8]}"
    topic, fed, counts = f"{name}.documents", 0, []
    before: Documents = {}
    ensure_topic(topic, 1)
    try:
        with _job(name, topic) as job:
            for version in versions:
                changed = {d: text for d, text in version.items() if text != before.get(d)}
                fed, before = fed + len(changed), version
                counts.append(_embedded_by(job, topic, changed, fed))
        with _job(f"{name}b", topic) as job:
            again = _embedded_by(job, topic, {}, fed)
    finally:
        delete_topic(topic)
    return {"embedded": counts, "embedded_by_another_job": again}


@contextmanager
def _job(name: str, topic: str) -> Iterator[str]:
    """The job over the topic, into a collection of its own; its name."""
    dead = f"{name}.dead-letters"
    config = RagIngest(topic=topic, collection=name, bucket=name, group=name, dead_letters=dead)
    with FlinkRest(Settings.load().flink_url) as rest:
        job_id = sage.flow.submit(rag_ingest.build(config), name=name)
        try:
            yield name
        finally:
            rest.cancel(job_id)
            store: Any = sage.db.collection(name, dim=config.dim).open()
            store.drop()
            delete_topic(dead)


def _embedded_by(job: str, topic: str, documents: Documents, read: int) -> int:
    """How many texts engines embedded until the job was through with ``read`` documents."""
    before = _texts_embedded()
    feed(topic, messages(documents))
    until(
        lambda: _is_through(job, read),
        WAIT_S,
        f"{job} is through with {read} documents",
        every_s=0.5,
    )
    return _texts_embedded() - before


def _is_through(job: str, read: int) -> bool:
    with FlinkRest(Settings.load().flink_url) as rest:
        try:
            now = job_balance(rest, rest.job(job))
        except StackError:
            return False  # it starts
    return now.is_balanced and now.rows[0].read == read


def _texts_embedded() -> int:
    settings = Settings.load()
    key = {"Authorization": f"Bearer {settings.secret('gateway')}"}
    page = httpx.get(f"{settings.gateway_url}/metrics", headers=key).raise_for_status().text
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == METRIC and sample.labels["outcome"] in EMBEDDED
        )
    )
