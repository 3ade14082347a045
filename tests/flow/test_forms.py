"""The two notations of a graph, Python and YAML, and its two drawings."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_connectors
import sage_flink as sage
from sage_connectors import kafka
from sage_flink import db, inference, operators, tsdb
from sage_flink.common import PipelineError
from sage_flink.flow import Admission, Batching, Node, Retry
from sage_flink.flow.yaml_form import VERBS
from sage_flink.operators import DecodeDocument, chunk

WORDS = sage.flow.vocabulary(sage_connectors, db, tsdb, inference, operators)


def ingest(**call):
    return (
        sage.flow.read("documents", kafka("documents"))
        .flat_map("decode", DecodeDocument(text_bytes_max=10))
        .flat_map("split", chunk(tokens_max=200, overlap=20))
        .call("embed", sage.embed(model="minilm"), **{"capacity": 64, "timeout_s": 10.0, **call})
        .write("vectors", db.collection("docs", dim=384))
        .dead_letters_to(kafka("dead-letters"))
    )


def test_yaml_reads_back_as_the_same_graph():
    graph = ingest()

    assert sage.flow.from_yaml(sage.flow.to_yaml(graph, WORDS), WORDS) == graph


@pytest.mark.slow
@given(
    capacity=st.integers(1, 10_000),
    timeout_s=st.floats(0.001, 1e6),
    ordered=st.booleans(),
    linger_s=st.floats(0, 10),
)
def test_any_call_reads_back_as_it_was(capacity, timeout_s, ordered, linger_s):
    graph = ingest(
        capacity=capacity,
        timeout_s=timeout_s,
        ordered=ordered,
        batching=Batching(linger_s=linger_s),
    )

    assert sage.flow.from_yaml(sage.flow.to_yaml(graph, WORDS), WORDS) == graph


def test_branches_and_unions_read_back():
    left = sage.flow.read("a", kafka("a"))
    right = sage.flow.read("b", kafka("b"))
    graph = sage.flow.union("both", left, right).write("out", kafka("out"))

    assert sage.flow.from_yaml(sage.flow.to_yaml(graph, WORDS), WORDS) == graph


def test_a_python_function_cannot_be_written_in_yaml():
    graph = sage.flow.read("a", kafka("a")).flat_map("f", lambda r: []).write("o", kafka("o"))

    with pytest.raises(PipelineError, match="step 'f': function has no YAML spelling; use one of"):
        sage.flow.to_yaml(graph, WORDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("- 1", "needs a list `steps:`"),
        ("steps: [{walk: x}]", "a step needs one of read, flat_map"),
        ("steps: [{read: x}]", "step 'x': needs `from:`"),
        (
            "steps: [{read: x, from: {rm: {}}}]",
            "step 'x': `from:` does not know 'rm'; use one of: files, generator, kafka$",
        ),
        ("steps: [{read: x, from: {kafka: {topics: a}}}]", "step 'x': unknown field 'topics'"),
        ("steps: [{read: x, from: {kafka: {topic: 3}}}]", "step 'x': topic must be text, got 3$"),
        ("steps: []\nmore: 1", "unknown key 'more'"),
        ("a: [", r"^line 1: pipeline: not YAML: [^\n]*$"),
        ("steps: [{flat_map: x, with: encode_json}]", "step 'x': needs a field `input:`"),
        (
            "steps: [{read: x, from: {kafka: {topic: a, start: now}}}]",
            "step 'x': start must be one of 'committed', 'earliest', 'latest', got 'now'",
        ),
        (
            "steps: [{read: x, from: {chunk: {tokens_max: 9, overlap: 0}}}]",
            "step 'x': chunk is for `flat_map:`, not for `read:`; use one of: files, gen",
        ),
        (
            "steps: [{read: x, from: {collection: {name: c, dim: 2}}}]",
            "step 'x': collection is for `write:` or `dead_letters:`, not for `read:`; use",
        ),
        (
            "steps: [{write: x, input: i, into: {collection: {name: c, dim: 2, full_text: some}}}]",
            "step 'x': full_text must be true or false, got 'some'",
        ),
        (
            "steps: [{call: x, input: i, capacity: 1, timeout_s: 1, "
            "to: {retrieve: {collection: c, hybrid: 1}}}]",
            "step 'x': hybrid must be true or false, got 1",
        ),
        (
            "steps: [{flat_map: x, input: i, with: {chunk: {tokens_max: 0, overlap: 50}}}]",
            "step 'x': chunk: tokens_max must be at least 1, got 0",
        ),
        (
            "steps: [{flat_map: x, input: i, with: {chunk: {tokens_max: 20}}}]",
            "step 'x': needs a field `overlap:`",
        ),
        (
            "steps: [{call: x, input: i, capacity: 1, timeout_s: 1, to: {embed: {model: ''}}}]",
            "step 'x': embed: model must be a name, got ''",
        ),
        (
            "steps: [{call: x, input: i, capacity: -1, timeout_s: 1, to: {embed: {model: m}}}]",
            "step 'x': capacity must be at least 1, got -1",
        ),
        ("steps: [{read: '', from: {kafka: {topic: a}}}]", "step name: must be 1 to 100"),
        (
            "steps: []\ndead_letters: encode_json",
            "encode_json is for `flat_map:`, not for `dead",
        ),
    ],
)
def test_the_error_for_bad_yaml_names_the_mistake(text, message):
    with pytest.raises(PipelineError, match=message):
        sage.flow.from_yaml(text, WORDS)


HYBRID = """\
steps:
- read: questions
  from:
    kafka:
      topic: questions
      format: json
- call: retrieve
  input: questions
  capacity: 4
  timeout_s: 5
  to: {retrieve: {collection: docs, hybrid: true}}
- write: found
  input: retrieve
  into: {collection: {name: found, dim: 384, full_text: true}}
"""


def test_full_text_search_has_a_yaml_form():
    graph = sage.flow.from_yaml(HYBRID, WORDS)

    _, call, write = graph.nodes
    assert call.spec == sage.retrieve(collection="docs", hybrid=True)
    assert write.sink == sage.db.collection("found", dim=384, full_text=True)
    assert sage.flow.from_yaml(sage.flow.to_yaml(graph, WORDS), WORDS) == graph


def test_the_text_drawing_names_every_step():
    lines = sage.flow.explain(ingest()).splitlines()

    assert [line.split()[0] for line in lines] == [
        "documents", "decode", "split", "embed", "vectors.batch", "vectors", "dead-letters",
    ]  # fmt: skip


def test_the_mermaid_drawing_has_an_arrow_per_edge():
    text = sage.flow.explain(ingest(), "mermaid")

    assert text.startswith("flowchart LR")
    assert text.count(" --> ") == 5


def test_every_node_has_a_verb():
    assert {kind for kind, _, _ in VERBS.values()} == set(get_args(Node))


def test_the_vocabulary_has_all_sources_operators_and_sinks():
    assert not {"echo_pool", "hit", "point", "row"} & WORDS.keys()
    assert {"kafka", "files", "collection", "bucket", "chunk", "embed"} <= WORDS.keys()


def test_the_text_drawing_shows_arguments_that_are_not_defaults():
    lines = sage.flow.explain(ingest()).splitlines()

    assert lines[0].endswith("Kafka(topic='documents')")
    assert lines[1].endswith("DecodeDocument(text_bytes_max=10)")
    assert lines[2].endswith("Chunk(tokens_max=200, overlap=20)")


def _operator(returned):
    @dataclass
    class Operator:
        def __call__(self, record) -> returned:
            return record

    return SimpleNamespace(__all__=["Operator"], Operator=Operator)


@pytest.mark.parametrize(
    ("returned", "verb"),
    [
        (bool, "filter"),
        (dict[str, int], "map"),
        (str | None, "map"),
        (list, "flat_map"),
        (list[str], "flat_map"),
        (Iterable, "flat_map"),
        (Iterable[str], "flat_map"),
        (Iterator[str], "flat_map"),
        (Generator[str, None, None], "flat_map"),
        (tuple[str, ...], "flat_map"),
    ],
)
def test_the_return_annotation_of_an_operator_gives_its_verb(returned, verb):
    words = sage.flow.vocabulary(_operator(returned))

    for other in ("flat_map", "map", "filter"):
        text = f"steps: [{{{other}: x, input: i, with: operator}}]"
        if other == verb:
            assert sage.flow.from_yaml(text, words).nodes[0].name == "x"
        else:
            with pytest.raises(PipelineError, match=f"operator is for `{verb}:`, not for `{other}"):
                sage.flow.from_yaml(text, words)


def test_an_unknown_drawing_is_refused():
    with pytest.raises(PipelineError, match="form must be 'text' or 'mermaid', got 'svg'"):
        sage.flow.explain(ingest(), "svg")


def test_the_error_for_an_unknown_exported_name_is_complete():
    with pytest.raises(AttributeError, match=r"module .sage_flink\.flow. has no attribute .no."):
        sage.flow.no  # noqa: B018


def test_map_filter_and_the_options_of_a_call_read_back():
    options = {"retry": Retry(7), "admission": Admission("acme", "high"), "batching": Batching(9)}
    graph = (
        sage.flow.read("in", kafka("in"))
        .filter("english", operators.Where("lang", "en"))
        .map("short", operators.Select(("text",)))
        .call("embed", sage.embed(model="m"), capacity=1, timeout_s=1.0, **options)
        .write("out", kafka("out"))
    )

    text = sage.flow.to_yaml(graph, WORDS)

    assert sage.flow.from_yaml(text, WORDS) == graph
    assert "- filter: english" in text
    assert "retry:\n    attempts_max: 7" in text
    assert sage.flow.explain(graph).splitlines()[1].split()[1:] == [
        "filter", "<-", "in;", "Where(field='lang',", "equals='en')",
    ]  # fmt: skip


CALL = "call: x, input: i, capacity: 1, timeout_s: 1, to: {embed: {model: m}}"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("map: x, input: i, with: rm", "`with:` does not know 'rm'; use one of: select$"),
        (
            "map: x, input: i, with: encode_json",
            "encode_json is for `flat_map:`, not for `map:`; use one of: select$",
        ),
        (
            "filter: x, input: i, with: {select: {fields: [a]}}",
            "select is for `map:`, not for `filter:`; use one of: where$",
        ),
        (
            "flat_map: x, input: i, with: {select: {fields: [a]}}",
            "select is for `map:`, not for `flat_map:`; use one of: ",
        ),
        ("map: x, input: i, with: {select: {fields: []}}", "select: fields must be a tuple"),
        (f"{CALL}, retry: {{attempts_max: 0}}", "retry: attempts_max must be at least 1, got 0"),
        (f"{CALL}, retry: 3", "retry must be named fields, got 3"),
        (f"{CALL}, retry: {{tries: 3}}", "retry: unknown field 'tries'; it knows: attempts_max"),
        (f"{CALL}, admission: {{tenant: 3}}", "admission: tenant must be text, got 3"),
        (f"{CALL}, attempts_max: 3", "unknown field 'attempts_max'"),
    ],
)
def test_the_error_for_a_bad_map_filter_or_option_names_it(step, message):
    with pytest.raises(PipelineError, match=f"^line 1: step 'x': .*{message}"):
        sage.flow.from_yaml(f"steps: [{{{step}}}]", WORDS)
