"""Errors of a YAML pipeline name the file, the line, the field, and what is needed."""

import pytest
from yaml_pipelines import GOOD, WORDS, WRONG

import sage_flink as sage
from sage_flink.common import PipelineError

#: The same for errors that only the check of the whole graph finds.
UNSOUND = {
    "an unknown step": ("input: decode", "input: decoder", 11, "which is not an earlier step"),
    "a name twice": ("- batch: rows", "- batch: embed", 25, "the name is used twice"),
    "no reader": ("input: rows", "input: embed", 30, "needs a batch before it"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_error_of_a_wrong_file_names_file_line_and_need(kind):
    was, becomes, line, message = WRONG[kind]
    assert GOOD.count(was) == 1, was

    with pytest.raises(PipelineError) as error:
        sage.flow.from_yaml(GOOD.replace(was, becomes), WORDS, "docs.yaml")

    assert str(error.value).startswith(f"docs.yaml:{line}: "), error.value
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", UNSOUND)
def test_the_errors_of_a_check_name_the_lines_of_their_steps(kind):
    was, becomes, line, message = UNSOUND[kind]
    text = GOOD.replace(was, becomes)
    graph = sage.flow.from_yaml(text, WORDS, "docs.yaml")

    with pytest.raises(PipelineError) as error, sage.flow.yaml_errors(text, "docs.yaml"):
        sage.flow.check(graph)

    found = str(error.value).split("\n")
    assert all(one.startswith("docs.yaml:") for one in found)
    assert any(one.startswith(f"docs.yaml:{line}: ") and message in one for one in found), found


def test_without_a_file_the_error_names_the_line_alone():
    with pytest.raises(PipelineError, match=r"^line 19: step 'embed': capacity must be"):
        sage.flow.from_yaml(GOOD.replace("capacity: 64", "capacity: 0"), WORDS)


def test_the_name_of_a_step_may_come_after_its_fields():
    text = GOOD.replace(
        "- flat_map: decode\n    input: documents", "- input: d\n    flat_map: decode"
    )

    with (
        pytest.raises(PipelineError, match="x:8: step 'decode': reads from 'd'"),
        sage.flow.yaml_errors(text, "x"),
    ):
        sage.flow.check(sage.flow.from_yaml(text, WORDS))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["&a [*a]", "steps: &a [*a]", "a: &a {b: *a}", "[" * 9_000, ""])
def test_a_document_without_end_or_content_is_refused(text):
    with pytest.raises(PipelineError):
        sage.flow.from_yaml(text, WORDS, "docs.yaml")
