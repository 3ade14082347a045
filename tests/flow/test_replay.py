"""A graph and dead letters make the graph that replays them, with the ids of the first run."""

import dataclasses
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import FailedRecord, PipelineError, Record, Rejected
from sage_flink.common.dead_letters import REPLAYED as MARK
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.flow import Batch, Union, Write
from sage_flink.flow.graph import REPLAYED
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.replay import one_transaction, replay

LETTERS = kafka("job.dead-letters")


@dataclass
class Faulty:
    """Two values of each record, unless it is to fail here; those that it refuses can change."""

    refused: frozenset = frozenset()

    def __call__(self, record):
        if record.id in self.refused:
            raise Rejected("not now")
        return [f"{record.value}.{n}" for n in range(2)]


def posted(*failed):
    """Dead letters as they come out of a topic."""
    messages = [to_message(record, "job") for record in failed]
    return [from_message(m.replace(id=f"dead/0/{n}")) for n, m in enumerate(messages)]


def letter(step, id_="a", value=1):
    return posted(FailedRecord(Record(id_, value, 7, b"k", {"h": b"\xff"}, "o"), step, "why"))[0]


def branched():
    """in -> a -> b -> out, and a -> c -> both <- d <- in; both -> other."""
    start = sage.flow.read("in", ListSource(()))
    a = start.flat_map("a", Faulty())
    first = a.flat_map("b", Faulty()).write("out", ListSink())
    both = sage.flow.union("both", a.flat_map("c", Faulty()), start.flat_map("d", Faulty()))
    return sage.flow.pipeline(first, both.write("other", ListSink()), dead_letters=LETTERS)


def drawn(graph):
    """Each step with its inputs, without the branch of the marks."""
    return {n.name: n.inputs for n in graph.nodes if not n.name.startswith(REPLAYED)}


def test_only_what_lies_behind_the_step_is_run():
    graph = replay(branched(), [letter("b")]).graph

    assert drawn(graph) == {
        "b.letters": (),
        "b": ("b.letters",),
        "out.batch": ("b",),
        "out": ("out.batch",),
    }
    assert graph.dead_letters == LETTERS


def test_the_record_enters_as_it_came_to_the_step():
    graph = replay(branched(), [letter("b", value={"v": b"\xff"})]).graph

    (record,) = graph.by_name["b.letters"].source.records()

    assert record == Record("a", {"v": b"\xff"}, 7, b"k", {"h": b"\xff"}, "o")


def test_a_union_keeps_the_inputs_that_are_left():
    one = replay(branched(), [letter("c")]).graph
    two = replay(branched(), [letter("c"), letter("d")]).graph

    assert drawn(one)["other.batch"] == ("c",)
    assert "both" not in one.by_name
    assert drawn(two)["both"] == ("c", "d")
    assert isinstance(two.by_name["both"], Union)


def test_a_step_behind_another_is_fed_by_both():
    graph = replay(branched(), [letter("a"), letter("b")]).graph

    assert drawn(graph)["b.input"] == ("a", "b.letters")
    assert drawn(graph)["b"] == ("b.input",)
    assert drawn(graph)["c"] == ("a",)


def test_a_letter_of_a_sink_enters_at_its_batch():
    graph = replay(branched(), [letter("other")]).graph

    assert drawn(graph) == {
        "other.batch.letters": (),
        "other.batch": ("other.batch.letters",),
        "other": ("other.batch",),
    }
    assert isinstance(graph.by_name["other.batch"], Batch)


def test_a_mark_for_each_dead_letter_goes_into_its_topic():
    twins = dataclasses.replace(letter("b"), position="dead/0/5", also=("dead/0/6",))

    graph = replay(branched(), [twins]).graph

    sink = graph.by_name[REPLAYED]
    assert isinstance(sink, Write)
    assert sink.sink == LETTERS
    marks = list(graph.by_name[sink.input].source.records())
    assert [mark.headers for mark in marks] == [{MARK: b"dead/0/5"}, {MARK: b"dead/0/6"}]


def test_letters_that_cannot_be_replayed_are_left_with_the_reason():
    letters = [
        letter("gone"),
        letter("both"),
        letter("b", value=object()),
        letter("b", value="\ud800"),
        letter("b", value=2**70),
        letter("b"),
    ]

    plan = replay(branched(), letters)

    assert plan.letters == (letters[5],)
    reasons = [skipped.reason for skipped in plan.skipped]
    assert reasons[0] == "step 'gone' is not in the pipeline any more"
    assert reasons[1] == "step 'both' is a Union now and refuses nothing"
    assert "the value cannot be read back" in reasons[2]
    assert all("its value cannot travel" in reason for reason in reasons[3:])


def test_with_no_letter_left_there_is_nothing_to_run():
    assert replay(branched(), [letter("gone")]).graph is None
    assert replay(branched(), []) == (None, (), ())


def test_letters_need_a_topic_that_can_be_marked():
    graph = sage.flow.read("in", ListSource(())).flat_map("a", Faulty()).write("out", ListSink())

    with pytest.raises(PipelineError, match="a replay marks dead letters in their topic"):
        replay(graph, [letter("a")])


@given(refused=st.sets(st.sampled_from("pqrstuv")))
async def test_a_run_and_the_replay_of_its_letters_write_what_one_sound_run_writes(refused):
    records = ListSource(tuple(Record(x, x, origin=x) for x in "pqrstuv"))

    def of(graph, refusing):
        function = {"b": Faulty(frozenset(refusing)), "d": Faulty(frozenset(refusing))}
        nodes = []
        for node in graph.nodes:
            if node.name in function:
                node = type(node)(node.name, node.input, function[node.name])
            nodes.append(node)
        return type(graph)(tuple(nodes), graph.dead_letters)

    sound = await sage.flow.run(branched(), sources={"in": records})
    # What `a` makes of a record has an id of its own; refuse some of those too.
    inner = {r.child("a", n, 0).id for r in records.rows if r.id in refused for n in range(2)}
    first = await sage.flow.run(of(branched(), refused | inner), sources={"in": records})
    plan = replay(branched(), posted(*first.failed))

    second = {"out": [], "other": []}
    if plan.graph is not None:
        ran = await sage.flow.run(plan.graph, sinks={REPLAYED: ListSink()})
        second = {name: ran.written.get(name, []) for name in second}

    for sink in ("out", "other"):
        once = first.written[sink] + second[sink]
        assert sorted(once, key=lambda r: r.id) == sorted(sound.written[sink], key=lambda r: r.id)


def test_native_sinks_share_a_transaction_with_the_letters_or_are_refused():
    def graph(sink):
        return sage.flow.read("in", ListSource(())).write("out", sink).dead_letters_to(LETTERS)

    one_transaction(graph(kafka("out")))
    one_transaction(graph(ListSink()))
    with pytest.raises(PipelineError, match="step 'out': its sink and the dead letters must be"):
        one_transaction(graph(kafka("out", "elsewhere:9092")))


def test_a_delete_and_a_value_shaped_like_one_enter_as_they_failed():
    delete = Record("a", None, origin="o").delete_of("doc", version="v", id="d")
    shaped = Record("b", {"$delete": {"doc": "doc", "keep": ""}}, origin="o")

    plan = replay(
        branched(), posted(FailedRecord(delete, "b", "x"), FailedRecord(shaped, "b", "x"))
    )

    assert list(plan.graph.by_name["b.letters"].source.records()) == [delete, shaped]
