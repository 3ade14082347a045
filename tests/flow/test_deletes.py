"""Deletes reach only sinks that support them, and never overtake the rows that they delete."""

import asyncio
import dataclasses

import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import PipelineError, Record
from sage_flink.common.settings import Settings
from sage_flink.db import collection
from sage_flink.flow import Call, Read, explain
from sage_flink.flow.deletes import in_order
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.steps import source_records
from sage_flink.inference import EchoPool
from sage_flink.operators import DecodeDocument, DropDeletes, chunk, measure

SPLIT = chunk(tokens_max=20, overlap=0)


def documents(source=None):
    read = sage.flow.read("in", source or kafka("documents"))
    return read.flat_map("decode", DecodeDocument())


def embed_texts(stream, name="embed", **call):
    return stream.call(name, sage.embed(model="m"), capacity=1, timeout_s=1, **call)


def vectors(stream, name="vectors", store="docs"):
    return stream.write(name, collection(store, dim=384))


def findings(graph, **options):
    graph = graph.dead_letters_to(kafka("dead"))
    with pytest.raises(PipelineError) as caught:
        sage.flow.check(graph, "flink", **options)
    return str(caught.value)


def is_accepted(graph, **options):
    graph = graph.dead_letters_to(kafka("dead"))
    return sage.flow.check(graph, "flink", **options) is graph


@pytest.mark.parametrize(
    ("sink", "kind"),
    [(sage.tsdb.bucket("ops"), "Bucket"), (kafka("out"), "Kafka")],
)
def test_a_sink_without_deletes_is_refused_downstream_of_deletes(sink, kind):
    text = findings(documents().write("out", sink))

    assert text == (
        f"step 'out': {kind} does not support deletes, and step 'decode' emits them; put "
        "DropDeletes() before it, or write to a sink that supports deletes"
    )


def test_after_an_operator_that_drops_deletes_any_sink_is_accepted():
    assert is_accepted(documents().flat_map("rows", DropDeletes()).write("out", kafka("out")))
    points = documents().flat_map("points", measure("m", fields=("text",)))
    assert is_accepted(points.write("ops", sage.tsdb.bucket("ops")))


def test_calls_before_a_sink_with_deletes_are_ordered():
    enriched = embed_texts(documents(), "before")
    split = enriched.flat_map("split", SPLIT)
    branch = embed_texts(split.flat_map("rows", DropDeletes()), "branch").write("out", kafka("out"))
    graph = sage.flow.pipeline(vectors(embed_texts(split)), branch)

    ordered = {n.name: n.ordered for n in in_order(graph).nodes if isinstance(n, Call)}

    assert ordered == {"before": True, "embed": True, "branch": False}
    assert explain(graph).splitlines()[2].endswith(", ordered")


def test_a_graph_without_deletes_keeps_its_calls():
    graph = embed_texts(sage.flow.read("in", kafka("in"))).write("out", kafka("out"))

    assert in_order(graph) is graph


def test_a_second_split_into_one_collection_is_refused():
    start = documents()
    one, other = (embed_texts(start.flat_map(n, SPLIT), f"embed {n}") for n in ("a", "b"))

    text = findings(sage.flow.pipeline(vectors(one, "left"), vectors(other, "right")))

    assert text == (
        "step 'right': the records of 'in' reach its rows on two paths, "
        "in > decode > a > embed a > left.batch > left and "
        "in > decode > b > embed b > right.batch > right, so a delete on one could remove or "
        "overtake rows of the other; write one of them to another collection"
    )
    by_address = collection("docs", dim=384, url=Settings.load().milvus_url)
    same = sage.flow.pipeline(vectors(one, "left"), other.write("right", by_address))
    assert findings(same) == text
    apart = sage.flow.pipeline(vectors(one, "left"), vectors(other, "right", "others"))
    assert is_accepted(apart)


def test_rows_that_bypass_the_deletes_of_their_source_are_refused():
    start = documents()
    around = start.flat_map("rows", DropDeletes())
    both = sage.flow.union("both", embed_texts(start.flat_map("split", SPLIT)), around)

    assert "reach its rows on two paths, in > decode > split" in findings(vectors(both))


def test_two_sources_may_share_a_collection():
    one, other = (
        sage.flow.read(name, kafka(name)).flat_map(f"decode {name}", DecodeDocument())
        for name in ("a", "b")
    )
    split = sage.flow.union("both", one, other).flat_map("split", SPLIT)

    assert is_accepted(vectors(embed_texts(split)))


def test_sinks_into_one_collection_are_one_target_whatever_their_batches():
    sink = collection("docs", dim=384)
    smaller = dataclasses.replace(sink, batch=sage.flow.BatchLimits(items_max=7))

    assert (sink == smaller, sink.place == smaller.place) == (False, True)


def test_a_source_in_python_is_refused_with_several_subtasks():
    graph = vectors(embed_texts(documents(ListSource(())).flat_map("split", SPLIT)))

    assert is_accepted(graph)
    text = findings(graph, parallelism=2)
    assert text.startswith("step 'in': its records are spread over 2 subtasks, so a delete could")
    assert is_accepted(vectors(embed_texts(documents().flat_map("split", SPLIT))), parallelism=2)


def run(graph, **options):
    return asyncio.run(sage.flow.run(graph, pool=EchoPool(), **options))


def test_a_function_that_returns_a_delete_without_declaring_it_is_rejected():
    def return_delete(record):
        return [record.delete_of("doc", id="d")]

    source = ListSource((Record("a", 1),))
    outcome = run(
        sage.flow.read("in", source).flat_map("f", return_delete).write("out", ListSink())
    )

    (failed,) = outcome.failed
    assert failed.reason == "the function returned a delete; declare emits_deletes = True on it"


class Undeclared(sage.inference.Embed):
    """A call that returns a delete."""

    def answer(self, record, body):
        return record.delete_of("doc", id="d")


def test_a_call_that_returns_a_delete_is_rejected():
    source = sage.flow.read("in", ListSource((Record("a", {"text": "x"}),)))
    graph = source.call("embed", Undeclared("m"), capacity=1, timeout_s=5).write("out", ListSink())

    outcome = run(graph)

    (failed,) = outcome.failed
    assert (failed.step, outcome.written) == ("embed", {"out": []})
    assert failed.reason == (
        "the call returned a delete; emit it in a flat_map with a function that declares "
        "emits_deletes"
    )


@dataclasses.dataclass(frozen=True)
class PlainSource:
    """A source that does not declare deletes."""

    rows: tuple

    def records(self):
        return iter(self.rows)


def test_a_source_that_returns_a_delete_without_declaring_it_is_refused():
    upsert = Record("a", 1)
    delete = upsert.delete_of("doc", id="d")

    records = source_records(Read("in", PlainSource((upsert, delete))))

    assert next(records) == upsert
    with pytest.raises(PipelineError) as error:
        next(records)
    assert str(error.value) == (
        "step 'in': record 'd': PlainSource returned a delete; declare emits_deletes = True on it"
    )
    declared = Read("in", ListSource((upsert, delete)))
    assert list(source_records(declared)) == [upsert, delete]


def test_a_source_record_that_cannot_be_encoded_is_refused_by_name():
    records = source_records(Read("in", PlainSource((Record("a", object()),))))

    with pytest.raises(PipelineError, match=r"^step 'in': record 'a': the record cannot be"):
        next(records)


def test_functions_and_calls_forward_a_delete_without_a_request():
    delete = Record("a", None, key=b"k", origin="o").delete_of("doc", version="v", id="d")
    sink = ListSink()
    stream = embed_texts(sage.flow.read("in", ListSource((delete,))), ordered=False)
    graph = stream.flat_map("never", lambda record: 1 / 0).write("out", sink)

    outcome = run(graph)

    assert sink.rows == {"d": delete}
    assert (outcome.failed, outcome.written) == ([], {"out": []})


def test_a_child_of_any_record_is_an_upsert():
    delete = Record("a", None).delete_of("doc", version="v", id="d")

    child = delete.child("step", 0, "value")

    assert (child.kind, child.document, child.version) == ("upsert", "", "")
