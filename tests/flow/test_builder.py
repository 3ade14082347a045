"""The builder refuses a bad step where it is written."""

from types import SimpleNamespace

import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import PipelineError
from sage_flink.flow.graph import Read, Write, for_job
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.operators import DecodeDocument

GIVEN = ListSource(())


def same(record):
    return [record]


def other(record):
    return [record]


EMBED = sage.embed(model="m")


def test_a_sink_without_a_batch_gets_one_from_its_own_limits():
    graph = sage.flow.read("in", GIVEN).write("out", ListSink())

    assert [node.name for node in graph.nodes] == ["in", "out.batch", "out"]


def test_an_explicit_batch_before_the_sink_is_kept():
    stream = sage.flow.read("in", GIVEN).batch("b", items_max=2, bytes_max=10, linger_s=1)

    assert [node.name for node in stream.write("out", ListSink()).nodes] == ["in", "b", "out"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda s: s.call("embed", EMBED, capacity=0, timeout_s=1),
            "step 'embed': capacity must be at least 1, got 0",
        ),
        (
            lambda s: s.call("embed", EMBED, capacity=1, timeout_s=0),
            "step 'embed': timeout_s must be more than 0 seconds, got 0",
        ),
        (lambda s: s.call("x", "chat", capacity=1, timeout_s=1), "step 'x': spec must be a call"),
        (lambda s: s.flat_map("x", 3), "step 'x': function must be a callable"),
        (lambda s: s.flat_map("", list), "step name: must be 1 to 100 characters"),
        (
            lambda s: s.write("x", object()),
            "step 'x': sink must be a sink with writer() or flink_sink(), got",
        ),
        (
            lambda s: s.write("x", SimpleNamespace(writer=list)),
            "step 'x': sink must be .*(batch missing: see Sink in sage_flink.flow.ports), got",
        ),
        (
            lambda s: s.call("x", SimpleNamespace(mode="post"), capacity=1, timeout_s=1),
            "step 'x': spec must be .*(answer, model, path, request missing: see CallSpec in",
        ),
        (
            lambda s: s.call("embed", EMBED, capacity=1, timeout_s=1, cache_ttl_s=-1),
            "step 'embed': cache_ttl_s must be at least 0, got -1",
        ),
        (
            lambda s: s.call("embed", EMBED, capacity=1, timeout_s=1, cache_ttl_s=10**8),
            "step 'embed': cache_ttl_s must be at most 99999999 seconds, got 100000000",
        ),
        (
            lambda s: s.batch("b", items_max=0, bytes_max=1, linger_s=1),
            "step 'b': items_max must be at least 1, got 0",
        ),
        (
            lambda s: s.call("x", EMBED, capacity=1.5, timeout_s=1),
            "step 'x': capacity must be a whole number, got 1.5",
        ),
        (
            lambda s: s.call("x", EMBED, capacity=1, timeout_s="1"),
            "step 'x': timeout_s must be more than 0 seconds, got '1'",
        ),
        (
            lambda s: s.call("x", EMBED, capacity=1, timeout_s=float("nan")),
            "step 'x': timeout_s must be more than 0 seconds, got nan",
        ),
        (lambda s: sage.flow.union("u", s, "x"), "step 'u': streams must be streams, got 'x'"),
        (lambda s: sage.flow.union("u", s), "step 'u': inputs must be two steps or more"),
        (
            lambda s: s.flat_map("x", DecodeDocument),
            "step 'x': function must be a callable taking a Record, and an object: DecodeDocument(",
        ),
        (lambda s: s.write("x", ListSink), "step 'x': sink must be .*, and an object: ListSink("),
        (lambda s: s.flat_map("a\nb", same), "step name: must be on one line"),
        (lambda s: s.flat_map("dead-letters", same), "step name: 'dead-letters' is the step for"),
        (
            lambda s: s.write("w", ListSink()).dead_letters_to("d"),
            "pipeline: dead_letters must be a sink such as",
        ),
        (lambda s: sage.flow.Read("r", [1]), r"step 'r': source must be a source with records()"),
    ],
)
def test_the_error_for_a_wrong_argument_has_its_name_and_value(build, message):
    with pytest.raises(PipelineError, match="^" + message.replace("(", r"\(").replace(")", r"\)")):
        build(sage.flow.read("in", GIVEN))


def test_branches_share_their_common_steps():
    head = sage.flow.read("in", GIVEN).flat_map("f", same)

    graph = sage.flow.pipeline(head.write("a", ListSink()), head.write("b", ListSink()))

    assert [n.name for n in graph.nodes] == ["in", "f", "a.batch", "a", "b.batch", "b"]


def test_two_different_steps_of_one_name_are_refused():
    head = sage.flow.read("in", GIVEN)
    left = head.flat_map("f", same).write("a", ListSink())
    right = head.flat_map("f", other).write("b", ListSink())

    with pytest.raises(PipelineError, match="'f': two different steps carry this name"):
        sage.flow.pipeline(left, right)


@pytest.mark.parametrize(
    "use",
    [sage.flow.check, sage.flow.explain, sage.flow.pipeline, lambda g: sage.flow.to_yaml(g, {})],
    ids=["check", "explain", "pipeline", "to_yaml"],
)
def test_the_error_for_a_stream_without_a_sink_names_the_next_step(use):
    stream = sage.flow.read("in", GIVEN).flat_map("f", same)

    with pytest.raises(PipelineError, match=r"ends in step 'f'; end the branch with \.write"):
        use(stream)


def test_branches_with_two_dead_letter_topics_are_refused():
    head = sage.flow.read("in", GIVEN)
    left = head.write("a", ListSink()).dead_letters_to(kafka("left"))
    right = head.write("b", ListSink()).dead_letters_to(kafka("right"))

    with pytest.raises(PipelineError, match=r"send failed records to .*left.* and to .*right.*;"):
        sage.flow.pipeline(left, right)
    assert sage.flow.pipeline(left, right, dead_letters=kafka("one")).dead_letters == kafka("one")


def test_branches_with_one_dead_letter_topic_keep_it():
    head = sage.flow.read("in", GIVEN)
    left = head.write("a", ListSink())
    right = head.write("b", ListSink()).dead_letters_to(kafka("dead"))

    assert sage.flow.pipeline(left, right).dead_letters == kafka("dead")


def test_the_sources_and_sinks_of_a_job_have_its_name() -> None:
    graph = (
        sage.flow.read("in", kafka("{job}.in"))
        .flat_map("same", lambda record: [record])
        .write("out", kafka("{job}.out"))
        .dead_letters_to(kafka("{job}.dead-letters"))
    )

    first, second = for_job(graph, "a"), for_job(graph, "b")

    assert [n.source for n in first.nodes if isinstance(n, Read)] == [kafka("a.in", group="a")]
    assert [n.sink for n in second.nodes if isinstance(n, Write)] == [kafka("b.out", group="b")]
    assert first.dead_letters == kafka("a.dead-letters", group="a")
    assert graph.dead_letters == kafka("{job}.dead-letters")
