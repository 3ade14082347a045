"""What an author writes first: map and filter, and refusals by name."""

import functools
from collections.abc import Iterable

import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import PipelineError, Record
from sage_flink.testing import ListSink, ListSource

RECORDS = (Record("a", "one"), Record("b", "three"), Record("c", ""))
STREAM = sage.flow.read("in", ListSource(RECORDS))


def is_accepted(stream):
    graph = stream.write("out", kafka("out")).dead_letters_to(kafka("failed"))
    return sage.flow.check(graph) is graph


async def test_map_keeps_the_id_and_filter_the_record():
    graph = (
        STREAM.filter("full", lambda record: record.value)
        .map("length", lambda record: len(record.value))
        .map("key", lambda record: record.replace(key=b"k"))
        .write("out", ListSink())
    )

    outcome = await sage.flow.run(graph)

    assert outcome.written["out"] == [Record("a", 3, key=b"k"), Record("b", 5, key=b"k")]


def boom(record):
    return int(record.value)


def count_twice(record):
    yield record.value
    yield boom(record)


@pytest.mark.parametrize(
    ("add", "line"),
    [
        (lambda s: s.map("f", lambda record: int(record.value)), 0),
        (lambda s: s.map("f", functools.partial(boom)), boom.__code__.co_firstlineno + 1),
        (lambda s: s.flat_map("f", count_twice), boom.__code__.co_firstlineno + 1),
        (lambda s: s.filter("f", boom), boom.__code__.co_firstlineno + 1),
    ],
    ids=["lambda", "partial", "generator", "filter"],
)
async def test_a_failure_names_the_authors_own_line(add, line):
    outcome = await sage.flow.run(add(STREAM).write("out", ListSink()))

    reason = outcome.failed[0].reason
    assert reason.startswith("ValueError: invalid literal for int()")
    assert "(test_author_functions.py:" in reason
    assert not line or reason.endswith(f":{line})")


async def test_a_failure_below_the_authors_code_names_the_authors_line():
    def decode(record):
        import json

        yield json.loads(record.value)

    outcome = await sage.flow.run(STREAM.flat_map("json", decode).write("out", ListSink()))

    line = decode.__code__.co_firstlineno + 3
    assert outcome.failed[0].reason.endswith(f"(test_author_functions.py:{line})")


async def fetch(record):
    return [record]


async def stream(record):
    yield record


class Fetching:
    async def __call__(self, record):
        return record


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (fetch, "a coroutine function"),
        (stream, "an asynchronous generator function"),
        (Fetching(), "a coroutine function"),
        (functools.partial(fetch), "a coroutine function"),
    ],
)
def test_an_asynchronous_function_is_refused_where_it_is_written(function, kind):
    for verb in (STREAM.flat_map, STREAM.map, STREAM.filter):
        with pytest.raises(
            PipelineError, match=f"step 'f': function must be a plain .* got {kind}"
        ) as e:
            verb("f", function)
        assert "test_author_functions.py:" in str(e.value)


@pytest.mark.parametrize("verb", ["flat_map", "map", "filter"])
@pytest.mark.parametrize(("got", "named"), [(Fetching, "Fetching("), (7, "7")])
def test_a_class_or_a_plain_value_is_refused_where_it_is_written(verb, got, named):
    with pytest.raises(PipelineError, match="step 'f': function must be a callable") as error:
        getattr(STREAM, verb)("f", got)

    assert named in str(error.value)


def to_words(record) -> dict[str, list[str]]:
    return {"words": record.value.split()}


def as_text(record) -> "str":
    return record.value


def is_full(record) -> bool:
    return bool(record.value)


def lines(record) -> Iterable[str]:
    yield from record.value.splitlines()


def tags(record) -> list[str]:
    return record.value.split()


def text_or_words(record) -> str | list[str]:
    return record.value


class TagWords:
    def __call__(self, record: Record) -> "dict[str, str]":
        return {}


def many(function):
    @functools.wraps(function)
    def listed(record):
        return [function(record)]

    return listed


@many
def to_listed_words(record) -> dict[str, str]:
    return {"word": record.value}


def returns_nothing(record) -> None:
    return None


@pytest.mark.parametrize("target", ["flink", "local"])
@pytest.mark.parametrize(
    ("verb", "function", "message"),
    [
        ("flat_map", to_words, r"returns dict: flat_map takes many .* or use map$"),
        ("flat_map", TagWords(), r"returns dict: flat_map takes many .* or use map$"),
        ("flat_map", as_text, r"returns str: flat_map takes many values"),
        ("flat_map", is_full, r"returns bool: flat_map takes many .* or use filter$"),
        ("flat_map", returns_nothing, r"returns None: flat_map takes many values"),
        ("filter", to_words, r"returns dict: filter keeps .*; return a bool, or use map$"),
        ("filter", TagWords(), r"returns dict: filter keeps the records"),
        ("filter", lines, r"returns Iterable: filter keeps the records"),
        ("filter", returns_nothing, r"returns None: filter keeps the records"),
    ],
)
def test_a_return_annotation_that_contradicts_the_verb_is_refused(verb, function, message, target):
    stream = getattr(STREAM, verb)("tag", function)
    graph = stream.write("out", ListSink()).dead_letters_to(ListSink())

    place = r"step 'tag': its function \(.*test_author_functions.py:\d+\) "
    with pytest.raises(PipelineError, match=place + message):
        sage.flow.check(graph, target)


@pytest.mark.parametrize(
    ("verb", "function"),
    [
        ("flat_map", lines),
        ("flat_map", tags),
        ("flat_map", text_or_words),
        ("flat_map", to_listed_words),
        ("filter", is_full),
        ("filter", as_text),
        ("filter", tags),
        ("map", to_words),
        ("map", tags),
        ("map", is_full),
    ],
)
def test_a_return_annotation_that_can_fit_the_verb_is_accepted(verb, function):
    assert is_accepted(getattr(STREAM, verb)("tag", function))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sage.flow.Retry(0), "retry: attempts_max must be at least 1, got 0"),
        (lambda: sage.flow.Batching(linger_s=-1), "batching: linger_s must be 0 seconds or more"),
        (lambda: sage.flow.Admission("a b"), "admission: tenant must be at most 100 letters"),
        (lambda: sage.flow.Admission(priority="now"), "admission: priority must be one of"),
        (
            lambda: STREAM.call("c", sage.chat(model="m"), capacity=1, timeout_s=1, retry=3),
            r"step 'c': retry must be Retry\(\.\.\.\), got 3",
        ),
    ],
)
def test_options_of_a_call_check_themselves(build, message):
    with pytest.raises(PipelineError, match=f"^{message}"):
        build()
