"""What an author writes first: map and filter, operators with resources, and refusals by name."""

import functools
import itertools
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import PipelineError, Record
from sage_flink.testing import EchoPool, ListSink, ListSource

RECORDS = (Record("a", "one"), Record("b", "three"), Record("c", ""))
STREAM = sage.flow.read("in", ListSource(RECORDS))


def findings(stream):
    with pytest.raises(PipelineError) as caught:
        sage.flow.check(stream.write("out", kafka("out")).dead_letters_to(kafka("failed")))
    return str(caught.value)


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


class Resource:
    """An operator with a resource; notes the events of all its copies."""

    events: ClassVar = []

    def __init__(self, fail_at=None):
        self.fail_at = fail_at

    def open(self, context):
        self.events.append(("open", context))
        self.suffix = "!"

    def __call__(self, record):
        if record.value == self.fail_at:
            raise RuntimeError("the resource broke")
        return record.value + self.suffix

    def close(self):
        self.events.append(("close", self.suffix))


@pytest.fixture(autouse=True)
def no_events():
    Resource.events.clear()


async def test_an_operator_is_opened_once_before_the_first_record_and_closed_at_the_end():
    operator = Resource()
    graph = STREAM.map("mark", operator).write("out", ListSink())

    outcome = await sage.flow.run(graph, job="j")

    assert [record.value for record in outcome.written["out"]] == ["one!", "three!", "!"]
    context = sage.flow.OpenContext("j", "mark", 0, 1)
    assert Resource.events == [("open", context), ("close", "!")]
    assert not hasattr(operator, "suffix")  # the graph stays the value that it was


async def test_an_operator_is_closed_when_the_run_fails():
    class Refusing(ListSink):
        def writer(self):
            raise PipelineError("no store")

    with pytest.raises(PipelineError, match="no store"):
        await sage.flow.run(STREAM.map("mark", Resource()).write("out", Refusing()))

    assert [event for event, _ in Resource.events] == ["open", "close"]


async def test_what_open_raises_is_raised_and_the_steps_before_are_closed():
    class Broken(Resource):
        def open(self, context):
            raise OSError("no model file")

    graph = STREAM.map("mark", Resource()).map("broken", Broken()).write("out", ListSink())

    with pytest.raises(OSError, match="no model file"):
        await sage.flow.run(graph)

    assert [event for event, _ in Resource.events] == ["open", "close"]


@dataclass(frozen=True, slots=True)
class FrozenTag:
    suffix: str = "!"

    def open(self, context):
        self.words = {"one"}

    def __call__(self, record):
        return record.value + self.suffix


@dataclass
class Tag:
    """A plain dataclass: ``open`` fills a field that is no part of its value."""

    suffix: str = "!"
    words: frozenset = field(default=frozenset(), init=False, repr=False, compare=False)

    def open(self, context):
        self.words = frozenset({context.step})

    def __call__(self, record):
        return "".join([*self.words, self.suffix])


class OpenedWithoutContext(Resource):
    def open(self):
        self.suffix = "?"


@pytest.mark.parametrize("target", ["flink", "local"])
@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (
            FrozenTag(),
            r"FrozenTag has open\(context\) but is frozen, so open cannot set 'words'; "
            "make it a plain @dataclass$",
        ),
        (
            OpenedWithoutContext(),
            r"OpenedWithoutContext.open must take one argument, the context: def open\(self, co",
        ),
    ],
)
def test_an_open_that_must_fail_is_refused(operator, message, target):
    for verb in (STREAM.flat_map, STREAM.map, STREAM.filter):
        graph = verb("tag", operator).write("out", ListSink()).dead_letters_to(ListSink())

        with pytest.raises(PipelineError, match=f"step 'tag': {message}"):
            sage.flow.check(graph, target)


async def test_a_plain_dataclass_can_be_opened_and_stays_an_equal_value():
    tag = Tag()

    outcome = await sage.flow.run(STREAM.map("tag", tag).write("out", ListSink()))

    assert outcome.written["out"][0].value == "tag!"
    assert tag == Tag()
    assert is_accepted(STREAM.map("tag", tag))


async def test_what_open_raises_names_the_step_and_the_class():
    class Slotted:
        __slots__ = ()

        def open(self, context):
            self.words = ()

        def __call__(self, record):
            return record.value

    with pytest.raises(AttributeError) as caught:
        await sage.flow.run(STREAM.map("tag", Slotted()).write("out", ListSink()))

    assert caught.value.__notes__ == ["step 'tag': raised by Slotted.open(context)"]


@dataclass(frozen=True)
class OpenedChat(type(sage.chat(model="m"))):
    """A call with a template that is made where the call runs."""

    def open(self, context):
        object.__setattr__(self, "template", "say {}")

    def request(self, record):
        messages = [{"role": "user", "content": self.template.format(record.value)}]
        return super().request(record.replace(value={"messages": messages}))

    def answer(self, record, body):
        return super().answer(record.replace(value={"id": record.id}), body)


async def test_a_call_is_opened_as_well():
    graph = STREAM.call("ask", OpenedChat("m"), capacity=1, timeout_s=5).write("out", ListSink())

    outcome = await sage.flow.run(graph, pool=EchoPool())

    assert outcome.written["out"][0].value["answer"] == "say one"


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
@pytest.mark.parametrize(("got", "named"), [(Resource, "Resource("), (7, "7")])
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


class Counting:
    def __init__(self):
        self.count = 0

    def __call__(self, record):
        self.count += 1
        return self.count


class CountingSinceOpen(Counting):
    def open(self, context):
        self.count = 0


class Remembering:
    def __init__(self):
        self.seen = set()

    def __call__(self, record):
        self.seen.add(record.id)
        return record.value


class Known:
    def __init__(self):
        self.known = {}

    def __call__(self, record):
        if record.id not in self.known:
            self.known[record.id] = 1
        return self.known


class KnownSinceOpen(Known):
    def open(self, context):
        self.known = {}


class LocalOfTheSameName(Known):
    def __call__(self, record):
        known = {}
        known[record.id] = 1
        known.update(self.known)
        return known


class NestedKnown:
    def __init__(self):
        self.known = {"a": {}}

    def __call__(self, record):
        del self.known["a"][record.id]


COUNTS = {"a": 0}


def counted(record):
    COUNTS[record.value if record.value else "a"] += 1
    return COUNTS["a"]


def closure_that_fills():
    counts = [0]

    def count(record):
        counts[0] += 1
        return counts[0]

    return count


def fills_by_index(record, kept={}):  # noqa: B006
    kept[record.id] = 1
    return len(kept)


NUMBERS = itertools.count()


def numbered(record):
    return next(NUMBERS)


def closure_over(thing):
    def use(record):
        return thing and record.value

    return use


def fills_a_list(record, kept=[]):  # noqa: B006
    kept.append(record.id)
    return len(kept)


def tally(record):
    global TOTAL
    TOTAL = 1
    return TOTAL


@pytest.mark.parametrize(
    ("function", "state"),
    [
        (Counting(), "'count' changes from record to record"),
        (Remembering(), "'seen' changes from record to record"),
        (Known(), "'known' changes from record to record"),
        (Known().__call__, "'known' changes from record to record"),
        (NestedKnown(), "'known' changes from record to record"),
        (counted, "'COUNTS' changes from record to record"),
        (closure_that_fills(), "'counts' changes from record to record"),
        (fills_by_index, "'kept' changes from record to record"),
        (functools.partial(fills_by_index, kept={}), "'kept' changes from record to record"),
        (functools.partial(fills_a_list, kept=[]), "'kept' changes from record to record"),
        (numbered, "'NUMBERS' is an iterator (count)"),
        (closure_over(iter([1])), "'thing' is an iterator (list_iterator)"),
        (closure_over(threading.Lock()), "'thing' is a lock"),
        (fills_a_list, "'kept' changes from record to record"),
        (tally, "'TOTAL' changes from record to record"),
        (functools.partial(closure_over(1), iter([1])), "'argument 0' is an iterator"),
    ],
    ids=[
        "attribute",
        "set",
        "item",
        "method",
        "nested item",
        "global item",
        "closure item",
        "default item",
        "partial item",
        "partial default",
        "global iterator",
        "iterator",
        "lock",
        "default",
        "global",
        "partial",
    ],
)
def test_state_that_a_restart_would_lose_is_refused_for_flink(function, state):
    text = findings(STREAM.map("f", function))

    assert "step 'f': its function (" in text
    assert "test_author_functions.py:" in text
    assert state in text
    assert "open(context)" in text


def test_an_open_file_and_a_socket_are_refused(tmp_path):
    with (tmp_path / "x").open("w") as file:
        assert "'thing' is an open file" in findings(STREAM.map("f", closure_over(file)))


WORDS = {"one": 1}


@pytest.mark.parametrize(
    "function",
    [
        CountingSinceOpen(),
        KnownSinceOpen(),
        LocalOfTheSameName(),
        Resource(),
        lambda record: WORDS.get(record.value),
        lambda record: sorted(Counter(record.value).items()),
        functools.partial(lambda word, record: word + record.value, "x"),
    ],
)
def test_a_function_without_lost_state_is_accepted(function):
    assert is_accepted(STREAM.map("f", function))


def test_local_variables_may_change():
    def longest(record):
        words, best, COUNTS = [], "", {}  # noqa: N806 - as the module's
        COUNTS[record.id] = 1
        for word in record.value.split():
            words.append(word)
            best = max(best, word, key=len)
        return {"words": words, "best": best}

    assert is_accepted(STREAM.map("f", longest))


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
