"""A graph and its dead letters give the graph that replays them, with the ids of the first run."""

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
from sage_flink.common.settings import Settings
from sage_flink.flow import Batch, Union, Write
from sage_flink.flow.graph import REPLAYED
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.replay import one_transaction, replay

DEAD_LETTERS = kafka("job.dead-letters")


@dataclass
class Faulty:
    """Two values for each record; records in the set ``refused``, which can change, fail."""

    refused: frozenset = frozenset()

    def __call__(self, record):
        if record.id in self.refused:
            raise Rejected("not now")
        return [f"{record.value}.{n}" for n in range(2)]


def dead_letters_of(*failed):
    """Dead letters as they are read from a topic."""
    messages = [to_message(record, "job") for record in failed]
    return [from_message(m.replace(id=f"dead/0/{n}")) for n, m in enumerate(messages)]


def dead_letter(step, id_="a", value=1):
    return dead_letters_of(
        FailedRecord(Record(id_, value, 7, b"k", {"h": b"\xff"}, "o"), step, "why")
    )[0]


def branching_graph():
    """in -> a -> b -> out, and a -> c -> both <- d <- in; both -> other."""
    start = sage.flow.read("in", ListSource(()))
    a = start.flat_map("a", Faulty())
    first = a.flat_map("b", Faulty()).write("out", ListSink())
    both = sage.flow.union("both", a.flat_map("c", Faulty()), start.flat_map("d", Faulty()))
    return sage.flow.pipeline(first, both.write("other", ListSink()), dead_letters=DEAD_LETTERS)


def inputs_by_step(graph):
    """Each step with its inputs, without the branch of the marks."""
    return {n.name: n.inputs for n in graph.nodes if not n.name.startswith(REPLAYED)}


def test_only_the_failed_step_and_its_successors_are_run():
    graph = replay(branching_graph(), [dead_letter("b")]).graph

    assert inputs_by_step(graph) == {
        "b.letters": (),
        "b": ("b.letters",),
        "out.batch": ("b",),
        "out": ("out.batch",),
    }
    assert graph.dead_letters == DEAD_LETTERS


@pytest.mark.parametrize("other", ["b.letters", "b.input", "c"])
def test_the_names_of_a_replay_differ_from_those_of_the_pipeline(other):
    long = "b" * 100
    for step in ("b", long):
        steps = sage.flow.read("in", ListSource(())).flat_map(other, Faulty())
        end = steps.flat_map(step, Faulty()).write("out", ListSink())
        graph = sage.flow.pipeline(end, dead_letters=DEAD_LETTERS)

        made = replay(graph, [dead_letter(other), dead_letter(step)]).graph

        assert made.by_name[step].input not in graph.by_name
    graph = replay(branching_graph(), [dead_letter("b", value={"v": b"\xff"})]).graph

    (record,) = graph.by_name["b.letters"].source.records()

    assert record == Record("a", {"v": b"\xff"}, 7, b"k", {"h": b"\xff"}, "o")


def test_a_union_keeps_only_replayed_inputs():
    one = replay(branching_graph(), [dead_letter("c")]).graph
    two = replay(branching_graph(), [dead_letter("c"), dead_letter("d")]).graph

    assert inputs_by_step(one)["other.batch"] == ("c",)
    assert "both" not in one.by_name
    assert inputs_by_step(two)["both"] == ("c", "d")
    assert isinstance(two.by_name["both"], Union)


def test_a_failed_step_after_another_reads_replayed_and_new_records():
    graph = replay(branching_graph(), [dead_letter("a"), dead_letter("b")]).graph

    assert inputs_by_step(graph)["b.input"] == ("a", "b.letters")
    assert inputs_by_step(graph)["b"] == ("b.input",)
    assert inputs_by_step(graph)["c"] == ("a",)


def test_a_dead_letter_of_a_sink_is_read_by_its_batch():
    graph = replay(branching_graph(), [dead_letter("other")]).graph

    assert inputs_by_step(graph) == {
        "other.batch.letters": (),
        "other.batch": ("other.batch.letters",),
        "other": ("other.batch",),
    }
    assert isinstance(graph.by_name["other.batch"], Batch)


def test_a_mark_for_each_dead_letter_is_written_to_its_topic():
    twins = dataclasses.replace(dead_letter("b"), position="dead/0/5", also=("dead/0/6",))

    graph = replay(branching_graph(), [twins]).graph

    sink = graph.by_name[REPLAYED]
    assert isinstance(sink, Write)
    assert sink.sink == DEAD_LETTERS
    marks = list(graph.by_name[sink.input].source.records())
    assert [mark.headers for mark in marks] == [{MARK: b"dead/0/5"}, {MARK: b"dead/0/6"}]


def test_dead_letters_that_cannot_be_replayed_are_kept_with_the_reason():
    dead_letters = [
        dead_letter("gone"),
        dead_letter("both"),
        dead_letter("b", value=object()),
        dead_letter("b", value="\ud800"),
        dead_letter("b", value=2**70),
        dead_letter("b"),
        dead_letter("b", value=b"x" * (40 << 20)),
    ]

    plan = replay(branching_graph(), dead_letters)

    assert plan.letters == (dead_letters[5],)
    reasons = [skipped.reason for skipped in plan.skipped]
    assert reasons[0] == "step 'gone' is not in the pipeline any more"
    assert reasons[1] == "step 'both' is a Union now and refuses nothing"
    assert "the value cannot be read back" in reasons[2]
    assert all("its value cannot travel" in reason for reason in reasons[3:5])
    assert reasons[5].startswith("the value was omitted: the record has 41943")
    assert reasons[5].endswith("its source record is 'o'")


def test_without_a_dead_letter_to_replay_there_is_no_graph():
    assert replay(branching_graph(), [dead_letter("gone")]).graph is None
    assert replay(branching_graph(), []) == (None, (), ())


def test_a_replay_needs_a_dead_letter_topic_for_its_marks():
    graph = sage.flow.read("in", ListSource(())).flat_map("a", Faulty()).write("out", ListSink())

    with pytest.raises(PipelineError, match="a replay marks dead letters in their topic"):
        replay(graph, [dead_letter("a")])


@pytest.mark.slow
@given(refused=st.sets(st.sampled_from("pqrstuv")))
async def test_a_run_and_its_replay_write_the_rows_of_a_run_without_failures(refused):
    records = ListSource(tuple(Record(x, x, origin=x) for x in "pqrstuv"))

    def of(graph, refusing):
        function = {"b": Faulty(frozenset(refusing)), "d": Faulty(frozenset(refusing))}
        nodes = []
        for node in graph.nodes:
            if node.name in function:
                node = type(node)(node.name, node.input, function[node.name])
            nodes.append(node)
        return type(graph)(tuple(nodes), graph.dead_letters)

    sound = await sage.flow.run(branching_graph(), sources={"in": records})
    # Children of `a` have ids of their own; refuse some of them too.
    inner = {r.child("a", n, 0).id for r in records.rows if r.id in refused for n in range(2)}
    first = await sage.flow.run(of(branching_graph(), refused | inner), sources={"in": records})
    plan = replay(branching_graph(), dead_letters_of(*first.failed))

    second = {"out": [], "other": []}
    if plan.graph is not None:
        ran = await sage.flow.run(plan.graph, sinks={REPLAYED: ListSink()})
        second = {name: ran.written.get(name, []) for name in second}

    for sink in ("out", "other"):
        once = first.written[sink] + second[sink]
        assert sorted(once, key=lambda r: r.id) == sorted(sound.written[sink], key=lambda r: r.id)


def test_native_sinks_share_a_transaction_with_the_dead_letters_or_are_refused():
    def graph(sink):
        return sage.flow.read("in", ListSource(())).write("out", sink).dead_letters_to(DEAD_LETTERS)

    one_transaction(graph(kafka("out")))
    one_transaction(graph(kafka("out", Settings.load().kafka_servers)))
    one_transaction(graph(ListSink()))
    with pytest.raises(PipelineError, match="step 'out': its sink and the dead letters must be"):
        one_transaction(graph(kafka("out", "elsewhere:9092")))


def test_a_delete_and_a_value_shaped_like_one_are_replayed_unchanged():
    delete = Record("a", None, origin="o").delete_of("doc", version="v", id="d")
    shaped = Record("b", {"$delete": {"doc": "doc", "keep": ""}}, origin="o")

    plan = replay(
        branching_graph(),
        dead_letters_of(FailedRecord(delete, "b", "x"), FailedRecord(shaped, "b", "x")),
    )

    assert list(plan.graph.by_name["b.letters"].source.records()) == [delete, shaped]
