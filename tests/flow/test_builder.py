"""The builder refuses a bad step where it is written."""

import pytest

import sage_flink as sage
from sage_flink.common import PipelineError
from sage_flink.flow.memory import Collected, Given

GIVEN = Given(())
EMBED = sage.embed(model="m")


def test_a_sink_without_a_batch_gets_one_from_its_own_limits():
    graph = sage.flow.read("in", GIVEN).write("out", Collected())

    assert [node.name for node in graph.nodes] == ["in", "out.batch", "out"]


def test_a_batch_before_the_sink_is_kept():
    stream = sage.flow.read("in", GIVEN).batch("b", items_max=2, bytes_max=10, linger_s=1)

    assert [node.name for node in stream.write("out", Collected()).nodes] == ["in", "b", "out"]


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
        (lambda s: s.write("x", object()), "step 'x': sink must be a sink"),
        (
            lambda s: s.batch("b", items_max=0, bytes_max=1, linger_s=1),
            "step 'b': items_max must be at least 1, got 0",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_what_came(build, message):
    with pytest.raises(PipelineError, match="^" + message.replace("(", r"\(")):
        build(sage.flow.read("in", GIVEN))


def test_branches_share_their_common_steps():
    head = sage.flow.read("in", GIVEN).flat_map("f", list)

    graph = sage.flow.pipeline(head.write("a", Collected()), head.write("b", Collected()))

    assert [n.name for n in graph.nodes] == ["in", "f", "a.batch", "a", "b.batch", "b"]


def test_two_different_steps_of_one_name_are_refused():
    head = sage.flow.read("in", GIVEN)
    left = head.flat_map("f", list).write("a", Collected())
    right = head.flat_map("f", tuple).write("b", Collected())

    with pytest.raises(PipelineError, match="'f': two different steps carry this name"):
        sage.flow.pipeline(left, right)
