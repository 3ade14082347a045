"""The in-process target runs the same graph on asyncio."""

import asyncio
import json

import pytest

import sage_flink as sage
from sage_flink.common import PipelineError, PoolError, Record, Rejected
from sage_flink.flow.memory import Collected, Given
from sage_flink.inference import EchoPool


def words(*texts):
    return Given(tuple(Record(id=f"r{i}", value={"text": t}) for i, t in enumerate(texts)))


class Flaky:
    """A pool that fails its first ``failures`` requests with ``status``."""

    def __init__(self, failures, status=503):
        self.left, self.status, self.asked = failures, status, []

    async def post(self, path, body, headers):
        self.asked.append(headers["x-request-id"])
        if self.left:
            self.left -= 1
            return self.status, json.dumps({"error": {"message": "no room"}}).encode()
        return await EchoPool().post(path, body, headers)

    def stream(self, path, body, headers):
        return EchoPool().stream(path, body, headers)


async def test_each_record_gets_the_vector_of_its_own_text():
    graph = (
        sage.flow.read("in", words("a b", "c"))
        .call("embed", sage.embed(model="m"), capacity=8, timeout_s=5)
        .write("out", Collected())
    )

    outcome = await sage.flow.run(graph, pool=EchoPool())

    assert sorted(r.value["text"] for r in outcome.written["out"]) == ["a b", "c"]
    assert {len(r.value["vector"]) for r in outcome.written["out"]} == {256}


async def test_a_record_that_raises_fails_alone_with_its_reason_and_place():
    def shout(record):
        if record.value["text"] == "bad":
            raise Rejected("it is bad")
        yield 1 / len(record.value["text"])

    graph = sage.flow.read("in", words("ok", "bad", "")).flat_map("f", shout)
    outcome = await sage.flow.run(graph.write("out", Collected()))

    assert [r.value for r in outcome.written["out"]] == [0.5]
    assert [(f.id, f.step, f.attempts) for f in outcome.failed] == [("r1", "f", 1), ("r2", "f", 1)]
    assert outcome.failed[0].reason == "it is bad"
    assert outcome.failed[1].reason.startswith("ZeroDivisionError: division by zero (test_local.py")


async def test_a_function_that_raises_late_leaves_nothing_behind():
    def half(record):
        yield 1
        raise ValueError("late")

    graph = sage.flow.read("in", words("x")).flat_map("f", half).write("out", Collected())
    outcome = await sage.flow.run(graph)

    assert outcome.written["out"] == []
    assert len(outcome.failed) == 1


async def test_a_busy_pool_is_asked_again_with_the_same_request_id():
    pool = Flaky(failures=2)
    graph = (
        sage.flow.read("in", words("x"))
        .call("embed", sage.embed(model="m"), capacity=1, timeout_s=20)
        .write("out", Collected())
    )

    outcome = await sage.flow.run(graph, pool=pool)

    assert len(outcome.written["out"]) == 1
    assert len(pool.asked) == 3
    assert len(set(pool.asked)) == 1


async def test_a_final_error_is_not_asked_again_and_is_kept():
    pool = Flaky(failures=9, status=400)
    graph = (
        sage.flow.read("in", words("x"))
        .call("embed", sage.embed(model="m"), capacity=1, timeout_s=20)
        .write("out", Collected())
    )

    outcome = await sage.flow.run(graph, pool=pool)

    assert [f.reason for f in outcome.failed] == ["no room"]
    assert len(pool.asked) == 1
    error = outcome.errors["r0"]
    assert isinstance(error, PoolError)
    assert error.status == 400


async def test_an_ordered_call_keeps_the_order_of_the_stream():
    class Slowing(Flaky):
        async def post(self, path, body, headers):
            await asyncio.sleep(0.05 / (1 + len(self.asked)))
            return await super().post(path, body, headers)

    graph = (
        sage.flow.read("in", words(*"abcdefgh"))
        .call("embed", sage.embed(model="m"), capacity=8, timeout_s=5, ordered=True)
        .write("out", Collected())
    )

    outcome = await sage.flow.run(graph, pool=Slowing(0))

    assert [r.id for r in outcome.written["out"]] == [f"r{i}" for i in range(8)]


async def test_a_streamed_answer_comes_in_pieces_and_as_a_whole():
    heard = []

    async def hear(step, text):
        heard.append((step, text))

    given = Given((Record(id="q", value={"messages": [{"role": "user", "content": "to be"}]}),))
    graph = (
        sage.flow.read("in", given)
        .call("say", sage.chat(model="m"), capacity=1, timeout_s=5)
        .write("out", Collected())
    )

    outcome = await sage.flow.run(graph, pool=EchoPool(), on_delta=hear)

    assert heard == [("say", "to "), ("say", "be ")]
    assert outcome.written["out"][0].value["answer"] == "to be "


async def test_a_step_can_be_given_another_source_and_sink():
    graph = sage.flow.read("in", words("x")).write("out", Collected())
    other = Collected()

    await sage.flow.run(graph, sources={"in": words("a", "b")}, sinks={"out": other})

    assert sorted(other.rows) == ["r0", "r1"]


async def test_a_call_without_a_pool_is_refused_before_anything_runs():
    graph = sage.flow.read("in", words("x")).call(
        "embed", sage.embed(model="m"), capacity=1, timeout_s=1
    )

    with pytest.raises(PipelineError, match="calls the model pool"):
        await sage.flow.run(graph.write("out", Collected()))
