"""Calls of the in-process target: retries, order, deltas, and requests that fail alone."""

import asyncio
import json

import pytest
from text_records import words

import sage_flink as sage
from sage_flink.common import PipelineError, PoolError, Record
from sage_flink.flow import Reply
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference import EchoPool

MODEL = sage.embed(model="m")
ONE_BY_ONE = sage.flow.Batching(items_max=1)


class Flaky:
    """A pool that fails its first ``failures`` requests with ``status``."""

    def __init__(self, failures, status=503):
        self.left, self.status, self.requests = failures, status, []

    async def post(self, path, body, headers):
        self.requests.append(headers.get("x-request-id"))
        if self.left:
            self.left -= 1
            return Reply(self.status, json.dumps({"error": {"message": "no room"}}).encode())
        return await EchoPool().post(path, body, headers)

    def stream(self, path, body, headers):
        return EchoPool().stream(path, body, headers)


async def test_each_record_gets_the_vector_of_its_own_text():
    graph = (
        sage.flow.read("in", words("a b", "c"))
        .call("embed", sage.embed(model="m"), capacity=8, timeout_s=5)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=EchoPool())

    assert sorted(r.value["text"] for r in outcome.written["out"]) == ["a b", "c"]
    assert {len(r.value["vector"]) for r in outcome.written["out"]} == {256}


async def test_a_request_to_a_busy_pool_is_retried_with_the_same_request_id():
    pool = Flaky(failures=2)
    source = ListSource((Record(id="r0", value={"messages": [{"role": "user", "content": "x"}]}),))
    graph = (
        sage.flow.read("in", source)
        .call("say", sage.chat(model="m"), capacity=1, timeout_s=20)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=pool)

    assert len(outcome.written["out"]) == 1
    assert len(pool.requests) == 3
    assert len(set(pool.requests)) == 1
    assert pool.requests[0]


async def test_a_final_error_is_not_retried_and_is_a_failed_record():
    pool = Flaky(failures=9, status=400)
    graph = (
        sage.flow.read("in", words("x"))
        .call("embed", sage.embed(model="m"), capacity=1, timeout_s=20)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=pool)

    assert [f.reason for f in outcome.failed] == ["no room"]
    assert len(pool.requests) == 1
    error = outcome.errors["r0"]
    assert isinstance(error, PoolError)
    assert error.status == 400


@pytest.mark.parametrize("ordered", [True, False])
async def test_only_an_ordered_call_keeps_the_order_of_the_stream(ordered):
    class EverFaster(EchoPool):
        calls = 0

        async def post(self, path, body, headers):
            EverFaster.calls += 1
            await asyncio.sleep(0.2 / EverFaster.calls)
            return await super().post(path, body, headers)

    graph = (
        sage.flow.read("in", words(*"abcdefgh"))
        .call("embed", MODEL, capacity=8, timeout_s=5, batching=ONE_BY_ONE, ordered=ordered)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=EverFaster())

    in_order = [f"r{i}" for i in range(8)]
    ids = [r.id for r in outcome.written["out"]]
    assert ids == in_order if ordered else sorted(ids) == in_order != ids


async def test_a_streamed_answer_is_delivered_in_deltas_and_as_a_whole():
    heard = []

    async def hear(step, text):
        heard.append((step, text))

    source = ListSource(
        (Record(id="q", value={"messages": [{"role": "user", "content": "to be"}]}),)
    )
    graph = (
        sage.flow.read("in", source)
        .call("say", sage.chat(model="m"), capacity=1, timeout_s=5)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=EchoPool(), on_delta=hear)

    assert heard == [("say", "to "), ("say", "be ")]
    assert outcome.written["out"][0].value["answer"] == "to be "


async def test_a_call_without_a_pool_is_refused_before_anything_runs():
    graph = sage.flow.read("in", words("x")).call(
        "embed", sage.embed(model="m"), capacity=1, timeout_s=1
    )

    with pytest.raises(PipelineError, match="calls the model pool"):
        await sage.flow.run(graph.write("out", ListSink()))


@pytest.mark.parametrize("title", ["", "title"])
async def test_a_request_that_cannot_be_built_fails_only_its_record(title):
    graph = (
        sage.flow.read(
            "in", ListSource((Record("a", {"text": "x", "title": "T"}), Record("b", {})))
        )
        .call("embed", sage.embed(model="m", title=title), capacity=2, timeout_s=5)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=EchoPool())

    assert [r.id for r in outcome.written["out"]] == ["a"]
    missing = title or "text"  # the title comes first
    assert [(f.id, f.reason) for f in outcome.failed] == [("b", f"field {missing!r} is missing")]


async def test_a_missing_title_rejects_the_record():
    graph = (
        sage.flow.read("in", words("x"))
        .call("embed", sage.embed(model="m", title="title"), capacity=1, timeout_s=5)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=EchoPool())

    assert [f.reason for f in outcome.failed] == ["field 'title' is missing"]


async def test_a_spec_that_raises_fails_only_that_record():
    class Fragile(type(sage.embed(model="m"))):
        def request(self, record):
            return record.value["absent"]

    graph = (
        sage.flow.read("in", words("x"))
        .call("embed", Fragile("m"), capacity=1, timeout_s=5)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=EchoPool())

    assert [f.reason[:21] for f in outcome.failed] == ["KeyError: 'absent' (t"]


async def test_a_malformed_embeddings_response_fails_its_record():
    class Odd(Flaky):
        async def post(self, path, body, headers):
            return Reply(200, b'{"data": "none"}')

    graph = (
        sage.flow.read("in", words("x"))
        .call("embed", sage.embed(model="m"), capacity=1, timeout_s=5)
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph, pool=Odd(0))

    assert outcome.failed[0].reason.startswith("m: not a page of embeddings")
