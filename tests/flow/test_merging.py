"""Merging of near-equal requests: what may share an answer, and what becomes of each record."""

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from merge_pairs import traffic
from text_vectors import text_vector

import sage_flink as sage
from sage_flink.common import PipelineError, Record
from sage_flink.flow import Admission, Call, Graph, Merging, Outcome, check, explain
from sage_flink.flow.call_ports import Reply
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference import EchoPool
from sage_flink.operators import DropDeletes
from sage_flink.platform.record_accounting import CountedStep, CounterSnapshot, balance

#: Of vectors that are hashed letters; with all-MiniLM-L6-v2 0.85 merges as much.
THRESHOLD = 0.6
MERGING = Merging(THRESHOLD, within_s=60)


@dataclass
class CountingPool:
    """An EchoPool that keeps the prompts; one with ``bad`` in it fails."""

    prompts: list[str] = field(default_factory=list)
    pause_s: float = 0.0

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        self.prompts.append(json.loads(body)["prompt"])
        await asyncio.sleep(self.pause_s)
        if "bad" in self.prompts[-1]:
            return Reply(400, b'{"error": {"message": "no"}}')
        return await EchoPool().post(path, body, headers)

    stream = EchoPool().stream


def ask(number: int, text: str, **more: Any) -> Record:
    value = {"text": text, "vector": text_vector(text), "number": number}
    return Record(f"r{number}", value, **more)


def graph(*records: Record, merging: Merging | None = MERGING, **call: Any) -> Graph:
    spec = sage.completion(model="m", prompt="text")
    options = {"capacity": 64, "timeout_s": 50.0, **call}
    asked = sage.flow.read("in", ListSource(records)).call("ask", spec, merging=merging, **options)
    return sage.flow.pipeline(asked.write("out", ListSink()))


def run(*records: Record, pool: CountingPool | None = None, **options: Any) -> Outcome:
    pool = CountingPool() if pool is None else pool
    return asyncio.run(sage.flow.run(graph(*records, **options), pool=pool))  # type: ignore[arg-type]


def test_of_traffic_with_40_percent_near_equal_requests_30_percent_of_the_calls_are_saved() -> None:
    requests = traffic(600, near=0.4)
    records = [ask(n, request.text) for n, request in enumerate(requests)]
    pool, unmerged = CountingPool(pause_s=0.001), CountingPool()

    outcome = run(*records, pool=pool)
    run(*records, pool=unmerged, merging=None)

    meaning = {request.text: request.meaning for request in requests}
    answers = {r.id: r.value for r in outcome.written["out"]}
    assert outcome.failed == []
    assert [answers[r.id]["number"] for r in records] == list(range(600))
    wrong = [v for v in answers.values() if meaning[v["completion"]] != meaning[v["text"]]]
    assert wrong == []
    assert len(unmerged.prompts) == 600
    assert len(pool.prompts) <= 0.7 * 600
    assert outcome.merged == {"ask": 600 - len(pool.prompts)}


def test_without_the_check_of_words_the_same_traffic_has_wrong_answers(monkeypatch) -> None:
    from sage_flink.flow.merging import requests as module

    monkeypatch.setattr(module, "counted_words", lambda text: ())
    requests = traffic(200, near=0.4)

    outcome = run(*(ask(n, request.text) for n, request in enumerate(requests)))

    meaning = {request.text: request.meaning for request in requests}
    answers = [r.value for r in outcome.written["out"]]
    assert sum(meaning[v["completion"]] != meaning[v["text"]] for v in answers) > 20


def test_requests_behind_one_that_fails_are_sent_themselves() -> None:
    texts = ["is it bad?", "Is it bad", "is it bad"]
    pool = CountingPool(pause_s=0.05)

    outcome = run(*(ask(n, text) for n, text in enumerate(texts)), pool=pool)

    assert sorted(pool.prompts) == sorted(texts)
    assert sorted(failed.id for failed in outcome.failed) == ["r0", "r1", "r2"]
    assert outcome.merged == {"ask": 0}


def test_a_request_that_waited_in_vain_has_what_is_left_of_its_time() -> None:
    pool = CountingPool(pause_s=60)

    outcome = run(*(ask(n, "what is it") for n in range(2)), pool=pool, timeout_s=0.3)

    assert [failed.reason for failed in outcome.failed] == ["no answer within 0.3 s"] * 2


@pytest.mark.parametrize(
    "more",
    [{"key": b"k"}, {"headers": {"sage-tenant": b"t"}}, {"headers": {"sage-priority": b"high"}}],
)
def test_requests_of_another_key_tenant_or_priority_share_no_answer(more: dict[str, Any]) -> None:
    records = [ask(0, "what is it"), ask(1, "what is it", **more), ask(2, "what is it", **more)]
    pool = CountingPool()

    outcome = run(*records, pool=pool, admission=Admission(tenant="own"))

    assert len(pool.prompts) == 2
    assert outcome.merged == {"ask": 1}


def test_the_same_words_with_vectors_apart_share_no_answer() -> None:
    far = ask(1, "what is it")
    far = far.replace(value={**far.value, "vector": text_vector("quite another")})
    shorter = far.replace(id="r2", value={**far.value, "vector": [1.0, 0.0]})
    pool = CountingPool()

    run(ask(0, "what is it"), far, shorter, pool=pool)

    assert len(pool.prompts) == 3


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"vector": [1.0]}, "its field 'question' must be text: requests are merged by it"),
        ({"question": "x"}, "its field 'vector' must be a vector: float32 bytes or a list of "),
        ({"question": "x", "vector": b"abc"}, "its field 'vector' must be a vector: float32 bytes"),
        ({"question": "x", "vector": [0, 0]}, "its field 'vector' must be a vector with a dir"),
        ({"question": "x", "vector": [float("nan")]}, "its field 'vector' must be a vector with"),
        ({"question": "x", "vector": struct.pack("<f", float("inf"))}, "its field 'vector' must b"),
        ({"question": "x", "vector": [1e300, 1e300]}, "its field 'vector' must be a vector with"),
    ],
)
def test_a_record_without_text_or_vector_is_a_dead_letter(value: Any, reason: str) -> None:
    record = Record("r", {**value, "text": "prompt"})

    outcome = run(record, merging=Merging(0.9, 60, text="question"))

    assert [failed.reason[: len(reason)] for failed in outcome.failed] == [reason]


@pytest.mark.parametrize(
    ("build", "flaw"),
    [
        (lambda: Merging(0, 60), "merging: threshold must be a cosine similarity above 0, at most"),
        (lambda: Merging(1.1, 60), "merging: threshold must be a cosine similarity above 0, at"),
        (lambda: Merging(0.9, 0), "merging: within_s must be a number of seconds, 0.001 or more"),
        (lambda: Merging(0.9, 60, vector=""), "merging: vector must be the path of a field"),
        (lambda: Merging(0.9, 60, answers_max=0), "merging: answers_max must be at least 1, got 0"),
        (lambda: graph(merging=0.9), "step 'ask': merging must be Merging(...) of a call that"),
        (lambda: graph(ordered=True), "step 'ask': ordered must be False with merging, which"),
        (
            lambda: Call("e", "in", sage.embed(model="m"), 1, 1.0, merging=MERGING),
            "step 'e': merging must be Merging(...) of a call that does not embed, or None, got",
        ),
    ],
)
def test_wrong_settings_are_refused_when_they_are_made(build: Any, flaw: str) -> None:
    with pytest.raises(PipelineError) as refused:
        build()

    assert str(refused.value).startswith(flaw)


def test_a_call_that_merges_takes_no_deletes() -> None:
    @dataclass(frozen=True)
    class Emitting:
        emits_deletes = True

        def records(self) -> list[Record]:
            return []

    read = sage.flow.read("in", Emitting())
    call = {"capacity": 1, "timeout_s": 1.0, "merging": MERGING}
    spec = sage.completion(model="m")
    refused = read.call("ask", spec, **call).flat_map("rows", DropDeletes())
    taken = read.flat_map("rows", DropDeletes()).call("ask", spec, **call)

    with pytest.raises(PipelineError, match="step 'ask': takes no deletes, and step 'in' emits"):
        check(sage.flow.pipeline(refused.write("out", ListSink())), "local")
    check(sage.flow.pipeline(taken.write("out", ListSink())), "local")


def test_yaml_and_explain_have_the_settings() -> None:
    sinks = {"list_source": ListSource, "list_sink": ListSink}
    words = {**sinks, **sage.flow.vocabulary(sage.inference)}
    text = """
steps:
  - read: in
    from: {list_source: {rows: []}}
  - call: ask
    input: in
    to: {completion: {model: m}}
    capacity: 4
    timeout_s: 5
    merging: {threshold: 0.9, within_s: 60, text: question}
  - write: out
    input: ask
    into: list_sink
"""

    made = sage.flow.from_yaml(text, words)

    assert made.by_name["ask"].merging == Merging(0.9, 60, text="question")  # type: ignore[union-attr]
    assert sage.flow.from_yaml(sage.flow.to_yaml(made, words), words) == made
    assert "Merging(threshold=0.9, within_s=60.0, text='question')" in explain(made)
    with pytest.raises(PipelineError, match=r"step 'ask': merging: needs a field `threshold:`"):
        sage.flow.from_yaml(text.replace("threshold: 0.9, ", ""), words)


def test_merged_records_are_a_column_of_the_account_and_not_missing() -> None:
    counts = {"ask.read": 5, "ask.asked": 5, "ask.answered": 5, "ask.emitted": 5, "ask.merged": 2}
    steps = (CountedStep("ask", "call", ()),)

    found = balance(steps, CounterSnapshot(counts))

    assert found.is_balanced
    assert found.rows[0].merged == 2
