"""Options of single steps: the checks of a graph with them, and the words of the command line."""

import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import ConfigError, PipelineError
from sage_flink.flow import StepOptions
from sage_flink.flow.check import check
from sage_flink.operators import DecodeDocument, chunk
from sage_jobs.entry import step_options as read_step_options

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Beam's, of its own age


def graph():
    documents = sage.flow.read("documents", kafka("in")).flat_map("decode", DecodeDocument())
    chunks = documents.flat_map("split", chunk(tokens_max=40, overlap=0))
    return chunks.write("rows", sage.db.collection("c", dim=4)).dead_letters_to(kafka("failed"))


def test_one_parallelism_keeps_the_order_of_deletes():
    every = dict.fromkeys(graph().by_name, 4)

    assert check(graph(), "flink", parallelism=4)
    assert check(graph(), "flink", parallelism=2, of_steps=every)


def test_a_delete_may_not_change_subtasks_on_its_way():
    with pytest.raises(PipelineError) as error:
        check(graph(), "flink", parallelism=2, of_steps={"split": 4})

    assert str(error.value).splitlines() == [
        "step 'split': has 4 subtasks and the step before it 2, so a delete could overtake rows on "
        "the way to step 'rows'; give all steps on that way one parallelism",
        "step 'rows.batch': has 2 subtasks and the step before it 4, so a delete could overtake "
        "rows on the way to step 'rows'; give all steps on that way one parallelism",
    ]


def test_a_batch_has_the_parallelism_of_its_sink():
    from sage_flink.flow.flink.step_options import parallelism_of_steps

    options = {"rows": StepOptions(parallelism=3), "split": StepOptions(slot_sharing_group="gpu")}

    assert parallelism_of_steps(graph(), options) == {"rows": 3, "rows.batch": 3}


def test_an_unknown_step_is_named_with_those_there_are():
    from sage_flink.flow.flink.step_options import parallelism_of_steps

    with pytest.raises(PipelineError, match="no step 'spilt'; it has 'documents', 'decode', 'spl"):
        parallelism_of_steps(graph(), {"spilt": StepOptions()})


@pytest.mark.parametrize(
    ("options", "flaw"),
    [
        ({"parallelism": -1}, "parallelism must be at least 0"),
        ({"parallelism": 1.5}, "parallelism must be a whole number"),
        ({"max_parallelism": "8"}, "max_parallelism must be a whole number"),
        ({"slot_sharing_group": 3}, "slot_sharing_group must be the name of a group"),
    ],
)
def test_wrong_options_are_refused(options, flaw):
    with pytest.raises(PipelineError, match=f"step options: {flaw}"):
        StepOptions(**options)


def test_the_command_line_names_steps_with_their_parallelism():
    options = read_step_options(["embed=4", "a=b=2"])

    assert {name: one.parallelism for name, one in options.items()} == {"embed": 4, "a=b": 2}


@pytest.mark.parametrize("word", ["embed", "embed=", "=3", "embed=0", "embed=-1", "embed=x"])
def test_a_word_of_another_form_is_refused(word):
    with pytest.raises(ConfigError, match="--step-parallelism must be STEP=N"):
        read_step_options([word])
