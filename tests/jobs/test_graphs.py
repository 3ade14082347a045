"""The jobs' graphs, run in process on in-memory adapters."""

import json

import pytest

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference import EchoPool
from sage_jobs import corpus, rag_answer, rag_ingest


@pytest.mark.parametrize("job", [rag_ingest, rag_answer])
def test_a_job_is_a_sound_graph_for_flink(job):
    assert sage.flow.check(job.build(), "flink")


async def test_a_question_is_answered_with_its_sources():
    question = Record(id="questions/0/1", value=b'{"question": "what is a tuple?"}')
    answers = ListSink()

    outcome = await sage.flow.run(
        rag_answer.build(),
        pool=EchoPool(passages=("a tuple is a sequence", "a list is a sequence")),
        sources={"questions": ListSource((question,))},
        sinks={"answers": answers},
    )

    assert outcome.failed == []
    reply = json.loads(answers.rows["questions/0/1"].value)
    assert reply["question"] == "what is a tuple?"
    assert "a tuple is a sequence" in reply["answer"]
    assert [s["doc"] for s in reply["sources"]] == [
        "a tuple is a sequence"[:20],
        "a list is a sequence",
    ]


def test_the_python_reference_has_one_document_per_topic():
    documents = corpus.python_reference()

    assert len(documents) == 79
    assert len({d["id"] for d in documents}) == 79
    assert all(d["text"] and d["title"] for d in documents)
    assert len({d["modified_ms"] for d in documents}) == 79
