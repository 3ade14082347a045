"""The main job on real servers: Kafka, Flink, the pool's engines, Milvus, InfluxDB, the gateway.

One job serves the whole module, so the tests depend on their order: the corpus is ingested while
the TaskManager is killed, is ingested again, is searched, and then invalid records follow.
"""

import asyncio
import json
import os
import signal
import statistics
import time
from array import array

import httpx
import pytest
from job_restarts import own_restarts
from waiting import wait_until

from sage_connectors import http_pool
from sage_flink.common import sage_home
from sage_flink.flow.calls.embeddings import embed
from sage_flink.platform import stack
from sage_jobs import corpus
from sage_jobs.demo import expect

pytestmark = [
    pytest.mark.service,
    pytest.mark.flink,
    pytest.mark.alone,
    pytest.mark.timeout(900),
    # PyFlink leaves the pipes and sockets of its JVM to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def documents():
    return corpus.python_reference()


@pytest.fixture(scope="module")
def messages(documents):
    return [corpus.message(document) for document in documents]


@pytest.fixture(scope="module")
def expected_index(messages, ingest):
    return expect(messages, ingest.config)


def kill_taskmanager():
    (part,) = (p for p in stack.status(sage_home()) if p.name == "taskmanager")
    java = [p for p in stack.processes(sage_home(), "taskmanager") if "java" in p.name()]
    os.kill(java[0].pid, signal.SIGKILL)
    return part.pid


def search(settings, collection, query, top_k=5):
    answer = httpx.post(
        f"{settings.gateway_url}/v1/vector_stores/{collection}/search",
        json={"query": query, "max_num_results": top_k},
        headers={"Authorization": f"Bearer {settings.secret('gateway')}"},
        timeout=30,
        verify=False,
    )
    assert answer.status_code == 200, answer.text
    return [hit["file_id"] for hit in answer.json()["data"]]


def test_a_killed_taskmanager_changes_no_count(ingest, messages, expected_index, capsys):
    began = time.monotonic()
    third = len(messages) // 3
    first = len(expect(messages[:third], ingest.config).chunks)
    ingest.feed(messages[:third])
    wait_until(lambda: ingest.store.count() >= first // 2, 180, "half of the first chunks")
    kill_taskmanager()
    killed = time.monotonic()
    at_kill = ingest.store.count()
    ingest.feed(messages[third:])  # so that output is missing, however late the kill was
    wait_until(lambda: ingest.store.count() > at_kill, 300, "output after the kill")
    back = time.monotonic() - killed
    wait_until(lambda: ingest.store.count() >= len(expected_index.chunks), 300, "all chunks")
    wait_until(
        lambda: ingest.bucket.count("chunks") >= len(expected_index.chunks), 120, "all points"
    )

    counts = (
        ingest.store.count(),
        ingest.store.count(expected_index.chunks),
        ingest.bucket.count("chunks"),
    )
    with capsys.disabled():
        print(
            f"\nread {len(messages)} documents = {len(messages)} written + "
            f"{len(ingest.dead_letters())} dead-lettered; chunks, vectors, points: "
            f"{len(expected_index.chunks)}, {counts[1]}, {counts[2]}; "
            f"output {back:.1f} s after "
            f"the kill, all in {time.monotonic() - began:.1f} s"
        )
    assert counts == (len(expected_index.chunks),) * 3
    assert ingest.dead_letters() == []
    assert ingest.rest.restarts(ingest.job_id) >= 1


def test_feeding_the_corpus_again_changes_no_count(ingest, messages, expected_index):
    from sage_connectors.kafka_client import committed_offsets

    ingest.feed(messages)
    wait_until(
        lambda: committed_offsets(ingest.config.group, ingest.config.topic) >= 2 * len(messages),
        180,
        "the second feed is read",
    )
    time.sleep(5)  # a record still in flight would arrive by now

    assert ingest.store.count() == len(expected_index.chunks)
    assert ingest.bucket.count("chunks") == len(expected_index.chunks)
    assert ingest.dead_letters() == []


def test_topics_are_found_by_heading_and_by_first_sentence(ingest, settings, documents, capsys):
    rates = {}
    for name, query in (
        ("heading", lambda d: d["title"]),
        ("first sentence", lambda d: corpus.first_sentence(d["text"])),
    ):
        hits = [d["id"] in search(settings, ingest.config.collection, query(d)) for d in documents]
        rates[name] = sum(hits) / len(hits)

    with capsys.disabled():
        print(f"\nfound in the top 5: {', '.join(f'{k} {v:.3f}' for k, v in rates.items())}")
    assert min(rates.values()) >= 0.95


def good(number):
    return json.dumps(
        {"id": f"good/{number}", "text": f"A good document, number {number}."}
    ).encode()


BAD = {
    "broken JSON": (b'{"id": "x", ', "not JSON"),
    "a missing field": (b'{"id": "x"}', "field 'text' is missing"),
    "empty text": (b'{"id": "x", "text": ""}', "field 'text' is empty"),
    "10 MB of text": (
        json.dumps({"id": "x", "text": "word " * 2_000_000}).encode(),
        "field 'text' has 10000000 bytes; at most 4000000",
    ),
    "NUL": (b'{"id": "x", "text": "a\\u0000b"}', "field 'text' has a NUL at character 1"),
    "invalid UTF-8": (b'{"id": "x", "text": "\xff\xfe"}', "not valid UTF-8 at byte 21"),
    "an unknown type": (
        b'{"type": "video", "id": "x", "text": "a"}',
        "unknown message type 'video'",
    ),
}


def test_bad_records_are_dead_lettered_once_and_good_ones_are_untouched(ingest):
    restarts, vectors = own_restarts(ingest.job_id), ingest.store.count()
    mixed = []
    for number, (raw, _) in enumerate(BAD.values()):
        mixed += [(b"bad", raw), (b"good", good(number))]

    ingest.feed(mixed)
    wait_until(lambda: len(ingest.dead_letters()) >= len(BAD), 120, "all dead letters")
    wait_until(lambda: ingest.store.count() >= vectors + len(BAD), 120, "all good records")
    time.sleep(5)  # a second copy would arrive by now
    dead_letters = ingest.dead_letters()

    assert len(dead_letters) == len({letter.id for letter in dead_letters}) == len(BAD)
    assert {letter.step for letter in dead_letters} == {"decode"}
    reasons = [letter.reason for letter in dead_letters]
    for _, reason in BAD.values():
        assert sum(got.startswith(reason) for got in reasons) == 1, (reason, reasons)
    values = {letter.message.value for letter in dead_letters}
    assert values == {raw for raw, _ in BAD.values()}
    assert max(map(len, filter(None, values))) >= 10_000_000
    assert ingest.store.count() == vectors + len(BAD)
    assert own_restarts(ingest.job_id) == restarts


def test_a_trickled_record_is_soon_searchable(ingest, capsys):
    """Measured from the call of the producer until a search for its own vector finds it."""
    texts = [f"Trickled record {number} about no other subject." for number in range(21)]
    vectors = asyncio.run(vectors_of(texts))
    seconds = []

    def paced_messages():
        for number, text in enumerate(texts):
            message = corpus.message({"id": f"trickle/{number}", "text": text})
            (chunk,) = expect([message], ingest.config).chunks
            began = time.monotonic()
            yield message
            while chunk not in [hit.id for hit in ingest.store.search(vectors[number], 3)]:
                assert time.monotonic() - began < 30
            seconds.append(time.monotonic() - began)

    ingest.feed(paced_messages())
    first, *rest = seconds
    p50, worst = statistics.median(rest) * 1000, max(rest) * 1000
    with capsys.disabled():
        print(f"\nfed to searchable: p50 {p50:.0f} ms, max {worst:.0f} ms, first {first:.2f} s")
    assert p50 <= 1_000  # the aim is 500 on a quiet machine; a busy one must not fail the test


async def vectors_of(texts):
    async with http_pool() as pool:
        return [array("f", vector) for vector in await embed(pool, "minilm", texts)]
