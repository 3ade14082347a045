"""The in-process target runs the same graph on asyncio: its functions, its sources, its sinks."""

import time

import pytest
from text_records import words

import sage_flink as sage
from sage_flink.common import PipelineError, Record, Rejected, StoreUnavailable
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.ports import BatchLimits
from sage_flink.inference import EchoPool

ONE_BY_ONE = sage.flow.Batching(items_max=1)


async def test_a_record_that_raises_fails_alone_with_its_reason_and_step():
    def shout(record):
        if record.value["text"] == "bad":
            raise Rejected("it is bad")
        yield 1 / len(record.value["text"])

    graph = sage.flow.read("in", words("ok", "bad", "")).flat_map("f", shout)
    outcome = await sage.flow.run(graph.write("out", ListSink()))

    assert [r.value for r in outcome.written["out"]] == [0.5]
    assert [(f.id, f.step, f.attempts) for f in outcome.failed] == [("r1", "f", 1), ("r2", "f", 1)]
    assert outcome.failed[0].reason == "it is bad"
    assert outcome.failed[1].reason.startswith("ZeroDivisionError: division by zero (test_local.py")


async def test_a_function_that_raises_late_emits_no_record():
    def half(record):
        yield 1
        raise ValueError("late")

    graph = sage.flow.read("in", words("x")).flat_map("f", half).write("out", ListSink())
    outcome = await sage.flow.run(graph)

    assert outcome.written["out"] == []
    assert len(outcome.failed) == 1


async def test_a_writer_is_opened_once_and_called_by_one_thread_at_a_time():
    class Slow(ListSink):
        opened = running = most = 0

        def writer(self):
            Slow.opened += 1
            return self

        def write(self, records):
            Slow.running += 1
            Slow.most = max(Slow.most, Slow.running)
            time.sleep(0.01)
            Slow.running -= 1
            return ()

    graph = (
        sage.flow.read("in", words(*"abcdefghijkl"))
        .call("embed", sage.embed(model="m"), capacity=8, timeout_s=5, batching=ONE_BY_ONE)
        .write("out", Slow(batch=BatchLimits(items_max=1)))
    )

    await sage.flow.run(graph, pool=EchoPool())

    assert (Slow.opened, Slow.most) == (1, 1)


async def test_the_source_and_sink_of_a_step_can_be_replaced():
    graph = sage.flow.read("in", words("x")).write("out", ListSink())
    other = ListSink()

    await sage.flow.run(graph, sources={"in": words("a", "b")}, sinks={"out": other})

    assert sorted(other.rows) == ["r0", "r1"]


@pytest.mark.parametrize("one", ["text", b"bytes", {"a": 1}, Record("r", 1), None, 7])
async def test_the_error_for_a_function_that_returns_one_value_asks_for_a_list(one):
    graph = sage.flow.read("in", words("x")).flat_map("f", lambda r: one)

    outcome = await sage.flow.run(graph.write("out", ListSink()))

    kind = type(one).__name__
    reason = f"the function returned {kind}; return a list, or yield"
    assert [f.reason for f in outcome.failed] == [reason]


async def test_a_stream_without_a_sink_is_not_run():
    with pytest.raises(PipelineError, match="ends in step 'in'"):
        await sage.flow.run(sage.flow.read("in", words("x")))


async def test_a_list_is_not_a_source():
    graph = sage.flow.read("in", words("x")).write("out", ListSink())

    with pytest.raises(PipelineError, match="step 'in': source must be a source with records"):
        await sage.flow.run(graph, sources={"in": [1, 2]})


class Away:
    """A sink whose store is away."""

    batch = BatchLimits(1)

    def writer(self):
        return self

    def write(self, records):
        raise StoreUnavailable("it is away")

    def close(self):
        """Nothing is open."""


@pytest.mark.parametrize("count", [1, 3])
async def test_a_sink_that_is_away_ends_the_run_with_its_own_error(count):
    records = ListSource(tuple(Record(f"n/{n}", n) for n in range(count)))
    graph = sage.flow.read("in", records).write("out", Away())

    with pytest.raises(StoreUnavailable, match="it is away"):
        await sage.flow.run(graph)
