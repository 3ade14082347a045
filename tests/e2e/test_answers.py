"""Questions answered from documents, by a Flink job and through the gateway."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import httpx
import pyflink
import pytest
from waiting import wait_until

import sage_flink as sage
from sage_connectors import http_pool
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_flink.common import Record
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.platform.flink_rest import FlinkRest
from sage_jobs import rag_answer, rag_ingest
from sage_jobs.rag_ingest import RagIngest

pytestmark = [
    pytest.mark.service,
    pytest.mark.flink,
    pytest.mark.timeout(700),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FACTS = {
    "heron": "The grey heron of the harbour is called Otto. Otto eats eels.",
    "lamp": "The lamp of the old lighthouse was built in 1887 by Ada Brandt.",
    "ferry": "The ferry to the island leaves at seven in the morning.",
}


@pytest.fixture(scope="module")
def collection():
    """Three documents, ingested by the job's own graph, run in process on the real servers."""
    name = f"t{uuid.uuid4().hex[:10]}"
    documents = ListSource(
        tuple(
            Record(id=f"documents/{doc}", value=json.dumps({"id": doc, "text": text}).encode())
            for doc, text in FACTS.items()
        )
    )

    async def ingest():
        async with http_pool() as pool:
            return await sage.flow.run(
                rag_ingest.build(RagIngest(collection=name)),
                pool=pool,
                sources={"documents": documents},
                sinks={"telemetry": ListSink()},
            )

    outcome = asyncio.run(ingest())
    assert outcome.failed == []
    assert len(outcome.written["vectors"]) == len(FACTS)
    store = sage.db.collection(name, dim=384).open()
    yield name
    store.drop()


@pytest.fixture
def topics():
    name = f"t{uuid.uuid4().hex[:10]}"
    made = [f"{name}.questions", f"{name}.answers"]
    yield made
    for topic in made:
        delete_topic(topic)


def test_a_job_submitted_by_flink_run_answers_from_topic_to_topic(settings, collection, topics):
    questions, answers = topics
    name = f"answer-{collection}"
    flink = Path(pyflink.__file__).parent / "bin" / "flink"
    options = ["-d", "-pyexec", sys.executable, "-pyclientexec", sys.executable]
    job = [
        *("-py", rag_answer.__file__, "--name", name, "--collection", collection),
        *("--questions", questions, "--answers", answers),
    ]
    python = Path(sys.executable).parent
    env = {
        **os.environ,
        "FLINK_CONF_DIR": str(settings.home / "conf" / "flink"),
        "PATH": f"{python}:{os.environ['PATH']}",
    }
    subprocess.run(["bash", flink, "run", *options, *job], check=True, env=env, timeout=300)
    with FlinkRest(settings.flink_url) as rest:
        submitted = rest.running(name)
        assert submitted is not None
        try:
            asked = {"q1": "What is the name of the heron?", "q2": "Who built the lamp?"}
            feed(
                questions,
                [(None, json.dumps({"id": i, "question": q}).encode()) for i, q in asked.items()],
            )
            wait_until(lambda: len(list(drain(answers))) >= 2, 300, "two answers")
            operators = " ".join(v["name"] for v in rest.vertices(submitted.id))
        finally:
            rest.cancel(submitted.id)

    replies = {record.key.decode(): json.loads(record.value) for record in drain(answers)}
    assert {i: reply["question"] for i, reply in replies.items()} == asked
    assert all(reply["answer"].strip() for reply in replies.values())
    assert replies["q1"]["sources"][0]["doc"] == "heron"
    assert replies["q2"]["sources"][0]["doc"] == "lamp"
    for step in ("questions", "retrieve", "prompt", "generate", "answers", "dead-letters"):
        assert step in operators


def test_an_unknown_collection_is_a_404(settings):
    answer = httpx.post(
        f"{settings.gateway_url}/v1/vector_stores/nosuch/search",
        json={"query": "x"},
        headers={"Authorization": f"Bearer {settings.secret('gateway')}"},
        verify=False,
    )

    assert answer.status_code == 404
    assert "nosuch" in answer.json()["error"]["message"]
