"""The jobs' graphs, run in process on in-memory adapters."""

import json

import pytest

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference import EchoPool
from sage_jobs import corpus, rag_answer, rag_ingest, session_summary


@pytest.mark.parametrize("job", [rag_ingest, rag_answer, session_summary])
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


def event(number: int, user: str, at_s: float) -> Record:
    value = {"user": user, "at": 1_700_000_000_000 + round(at_s * 1000), "action": f"step {number}"}
    id_ = f"events/0/{number}"
    return Record(id_, json.dumps(value).encode(), origin=id_)


async def test_each_session_of_a_user_is_summarized_once():
    events = [event(0, "anna", 0), event(1, "bert", 5), event(2, "anna", 60)]
    events += [event(3, "anna", 4_000), event(4, "bert", 9_000), event(5, "anna", 10)]
    messages = (*events, Record("events/0/6", b"no event", origin="events/0/6"))
    summaries, late = ListSink(), ListSink()

    outcome = await sage.flow.run(
        session_summary.build(),
        pool=EchoPool(),
        sources={"events": ListSource(messages)},
        sinks={"summaries": summaries, "late-events": late, "telemetry": ListSink()},
    )

    assert [failed.step for failed in outcome.failed] == ["events"]
    found = [json.loads(record.value) for record in outcome.written["summaries"]]
    assert [(s["user"], s["events"], s["duration_s"]) for s in found] == [
        ("bert", 1, 0.0),
        ("anna", 2, 60.0),
        ("anna", 1, 0.0),
        ("bert", 1, 0.0),
    ]
    assert "step 0\n- step 2" in found[1]["summary"]
    assert len(late.rows) == 1
    assert len(outcome.written["telemetry"]) == len(found)


def test_the_python_reference_has_one_document_per_topic():
    documents = corpus.python_reference()

    assert len(documents) == 79
    assert len({d["id"] for d in documents}) == 79
    assert all(d["text"] and d["title"] for d in documents)
    assert len({d["modified_ms"] for d in documents}) == 79
