"""map_batches: a function takes whole batches; a record that it cannot take fails alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import sage_flink as sage
from sage_flink.common import PipelineError, Record, StoreUnavailable
from sage_flink.flow import Refusal
from sage_flink.flow.batches import map_batch
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.ports import OpenContext


@dataclass
class Doubled:
    """Doubles numbers; notes the sizes of its batches."""

    sizes: list[int] = field(default_factory=list, compare=False)

    def open(self, context: OpenContext) -> None:
        self.sizes.append(0)

    def __call__(self, records: Sequence[Record]) -> list[Any]:
        self.sizes.append(len(records))
        return [record.value * 2 for record in records]


def numbers(count: int) -> ListSource:
    return ListSource(tuple(Record(f"n/{n}", n, n, b"k", {"h": b"1"}) for n in range(count)))


def build(function: Any, source: ListSource, **limits: Any) -> sage.flow.Graph:
    read = sage.flow.read("in", source)
    return read.map_batches("batched", function, **limits).write("out", ListSink())


async def run(function: Any, source: ListSource, **limits: Any) -> sage.flow.Outcome:
    return await sage.flow.run(build(function, source, **limits))


async def test_each_record_keeps_its_id_and_place_and_gets_its_value():
    function = Doubled()

    outcome = await run(function, numbers(25), items_max=10)

    expected = [Record(f"n/{n}", 2 * n, n, b"k", {"h": b"1"}) for n in range(25)]
    assert outcome.written["out"] == expected
    assert function.sizes == [0, 10, 10, 5]


async def test_a_batch_is_halved_until_the_record_that_fails_is_alone():
    calls = []

    def function(records: Sequence[Record]) -> list[Any]:
        calls.append(len(records))
        if any(record.value == 5 for record in records):
            raise ValueError("five")
        return [record.value for record in records]

    outcome = await run(function, numbers(8))

    assert [record.value for record in outcome.written["out"]] == [0, 1, 2, 3, 4, 6, 7]
    assert [failed.record.id for failed in outcome.failed] == ["n/5"]
    assert outcome.failed[0].reason.startswith("ValueError: five (test_map_batches.py:")
    assert calls == [8, 4, 4, 2, 1, 1, 2]


async def test_outputs_may_be_records_and_refusals():
    def function(records: Sequence[Record]) -> list[Any]:
        first, second, _ = records
        return [first.replace(id="other"), Refusal(second, "odd"), None]

    outcome = await run(function, numbers(3))

    assert [(r.id, r.value) for r in outcome.written["out"]] == [("other", 0), ("n/2", None)]
    assert [(f.record.id, f.reason) for f in outcome.failed] == [("n/1", "odd")]


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        (lambda records: [1], "the function returned 1 outputs for 2 records"),
        (lambda records: [object() for _ in records], "cannot be encoded"),
        (lambda records: None, "TypeError: 'NoneType' object is not iterable"),
        (lambda records: [r.delete_of("d", id="d") for r in records], "returned a delete"),
    ],
)
async def test_outputs_that_cannot_be_are_dead_letters(outputs, reason):
    outcome = await run(outputs, numbers(2))

    single = [record.id for record in outcome.written["out"]]
    assert len(outcome.failed) + len(single) == 2
    if "outputs for" not in reason:  # alone, one output is right
        assert all(reason in failed.reason for failed in outcome.failed)
        assert single == []


async def test_deletes_pass_in_their_place_unseen():
    seen: list[str] = []

    def function(records: Sequence[Record]) -> list[Any]:
        seen.extend(record.kind for record in records)
        return [record.value + 1 for record in records]

    one, two = (Record(f"n/{n}", n) for n in (1, 2))
    node = sage.flow.MapBatches("batched", "in", function)

    made = map_batch(node, [one, one.delete_of("n/1", id="n/1/d"), two])

    assert [(out.id, out.kind, out.value) for out in made] == [
        ("n/1", "upsert", 2),
        ("n/1/d", "delete", None),
        ("n/2", "upsert", 3),
    ]
    assert seen == ["upsert", "upsert"]


async def test_a_store_that_is_away_ends_the_run_in_process():
    def function(records: Sequence[Record]) -> list[Any]:
        raise StoreUnavailable("it is away")

    with pytest.raises(StoreUnavailable, match="it is away"):
        await run(function, numbers(3))


def test_windows_behind_need_an_event_time_behind():
    read = sage.flow.read("in", numbers(3)).event_time("time", out_of_order_s=1)
    batched = read.map_batches("batched", Doubled())
    windows = sage.flow.Tumbling(60)
    graph = batched.window("w", windows).write("out", ListSink())
    timed = batched.event_time("again", out_of_order_s=1).window("w", windows)

    with pytest.raises(PipelineError, match="step 'w': needs event time"):
        sage.flow.check(graph, "local")
    assert sage.flow.check(timed.write("out", ListSink()), "local")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": 3}, "function must be a callable taking a list of Records"),
        ({"function": Doubled}, "function must be a callable"),
        ({"items_max": 0}, "items_max must be at least 1"),
        ({"linger_s": 0}, "linger_s must be more than 0 seconds"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    with pytest.raises(PipelineError, match=f"step 'batched': {message}"):
        sage.flow.MapBatches("batched", "in", **{"function": Doubled(), **change})


def test_a_coroutine_function_is_refused():
    async def function(records):
        return records

    with pytest.raises(PipelineError, match="must be a plain function, got a coroutine function"):
        sage.flow.MapBatches("batched", "in", function)


def test_state_that_a_restart_loses_is_refused():
    seen = set()

    def function(records):
        seen.update(record.id for record in records)
        return [record.value for record in records]

    graph = build(function, numbers(1))
    with pytest.raises(PipelineError, match="keeps state that a restart loses: 'seen'"):
        sage.flow.check(graph.dead_letters_to(ListSink()), "flink")


def test_it_is_drawn_with_its_limits():
    line = sage.flow.explain(build(Doubled(), numbers(1), items_max=7)).splitlines()[1]
    assert line == "batched    map_batches  <- in; Doubled(); 7 items, 0.01 s"
