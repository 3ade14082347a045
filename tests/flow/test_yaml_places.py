"""Errors of a YAML pipeline name the file, the line, the field, and what is needed."""

import pytest

import sage_connectors
import sage_flink as sage
from sage_flink import db, inference, operators, tsdb
from sage_flink.common import PipelineError

WORDS = sage.flow.vocabulary(sage_connectors, db, tsdb, inference, operators)
GOOD = """\
# documents -> Milvus
steps:
  - read: documents
    from:
      kafka:
        topic: documents
        start: earliest
  - flat_map: decode
    input: documents
    with: decode_document
  - flat_map: split
    input: decode
    with:
      chunk:
        tokens_max: 200
        overlap: 20
  - call: embed
    input: split
    capacity: 64
    timeout_s: 10
    to:
      embed: {model: minilm}
    retry:
      attempts_max: 5
  - batch: rows
    input: embed
    items_max: 100
    bytes_max: 1000000
    linger_s: 0.1
  - write: vectors
    input: rows
    into:
      collection:
        name: docs
        dim: 384
dead_letters:
  kafka:
    topic: failed
"""

#: What is wrong: a text, its replacement, the line of the error, and what its message says.
WRONG = {
    "no YAML": ("topic: documents", "[topic", 7, "not YAML: expected ',' or ']'"),
    "a tab": ("    from:", "\tfrom:", 4, "not YAML: found character"),
    "a key twice": ("    capacity: 64", "    input: split", 19, "the key 'input' is there"),
    "an unknown key": ("dead_letters:", "dead_letter:", 36, "unknown key 'dead_letter'"),
    "an unknown verb": ("- batch:", "- bach:", 25, "a step needs one of read, flat_map"),
    "a step that is text": ("- batch: rows", "- rows\n  - batch: rows", 25, "a step needs one"),
    "two verbs": ("    input: rows", "    read: x", 30, "a step needs one of read"),
    "no spec": ("    with: decode_document\n", "", 8, "'decode': needs `with:` with one of:"),
    "an unknown word": ("decode_document", "decode_doc", 10, "does not know 'decode_doc'; use one"),
    "a word elsewhere": ("decode_document", "kafka", 10, "kafka is for `read:` or `write:`"),
    "a missing field": ("        overlap: 20\n", "", 14, "'split': needs a field `overlap:`"),
    "an unknown field": ("overlap: 20", "overlaps: 20", 16, "unknown field 'overlaps'; it knows"),
    "text for a number": ("overlap: 20", "overlap: some", 16, "overlap must be a whole number"),
    "a number for text": ("topic: documents", "topic: 3", 6, "topic must be text, got 3"),
    "another choice": ("start: earliest", "start: now", 7, "start must be one of 'committed'"),
    "too little": ("capacity: 64", "capacity: 0", 19, "capacity must be at least 1, got 0"),
    "an option": ("attempts_max: 5", "attempts_max: 0", 24, "attempts_max must be at least 1"),
    "an option's name": ("attempts_max: 5", "tries: 5", 24, "unknown field 'tries'"),
    "no input": ("    input: split\n", "", 17, "'embed': needs a field `input:`"),
    "a dead-letter sink": ("    topic: failed", "    topics: x", 38, "unknown field 'topics'"),
    "a null": ("dim: 384", "dim:", 35, "dim must be a whole number, got None"),
    "no name": ("- batch: rows", "- batch: ''", 25, "step name: must be 1 to 100"),
}
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


@pytest.mark.parametrize("text", ["&a [*a]", "steps: &a [*a]", "a: &a {b: *a}", "[" * 9_000, ""])
def test_a_document_without_end_or_content_is_refused(text):
    with pytest.raises(PipelineError):
        sage.flow.from_yaml(text, WORDS, "docs.yaml")
