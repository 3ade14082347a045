"""State that a function keeps from record to record: refused for Flink, as a restart loses it."""

import functools
import itertools
import socket
import threading
from collections import Counter
from types import SimpleNamespace
from typing import ClassVar

import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import PipelineError, Record
from sage_flink.testing import ListSource

STREAM = sage.flow.read("in", ListSource((Record("a", "one"),)))


def findings(stream):
    with pytest.raises(PipelineError) as caught:
        sage.flow.check(stream.write("out", kafka("out")).dead_letters_to(kafka("failed")))
    return str(caught.value)


def is_accepted(stream):
    graph = stream.write("out", kafka("out")).dead_letters_to(kafka("failed"))
    return sage.flow.check(graph) is graph


class Counting:
    def __init__(self):
        self.count = 0

    def __call__(self, record):
        self.count += 1
        return self.count


class CountingSinceOpen(Counting):
    def open(self, context):
        self.count = 0


class CountingSinceOpenOfTheBase(CountingSinceOpen):
    def open(self, context):
        super().open(context)


class CountingSinceReset(Counting):
    def open(self, context):
        self.reset()

    def reset(self):
        self.start(0)

    def start(self, count):
        self.count = count


class SuffixSinceOpen:
    def open(self, context):
        self.suffix = "!"

    def __call__(self, record):
        return record.value + self.suffix


class Remembering:
    def __init__(self):
        self.seen = set()

    def __call__(self, record):
        self.seen.add(record.id)
        return record.value


class RememberingInTheClass:
    seen: ClassVar = set()
    numbers: ClassVar = itertools.count()

    def __call__(self, record):
        self.seen.add(record.id)
        return next(self.numbers)


SEEN = set()


class RememberingInTheModule:
    def __call__(self, record):
        SEEN.add(record.id)
        return record.value


class ToAnotherObject:
    def __init__(self):
        self.model = "m"
        self.count = 0
        self.tags = []

    def __call__(self, record):
        result = SimpleNamespace(tags=list(self.tags), count=0)
        result.model = self.model
        result.count += 1
        result.tags.append(record.value)
        return vars(result)


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


def count_values(record):
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


def without_source(text, **names):
    """The function ``f`` of a text that is in no file."""
    exec(text, names)
    return names["f"]


def method_without_source(text):
    """An object with a count, tags, and a ``__call__`` of this body."""
    call = without_source(f"def f(self, record):\n    {text}")
    return type("Own", (), {"count": 0, "tags": [], "__call__": call})()


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
        (RememberingInTheClass(), "'seen' changes from record to record"),
        (RememberingInTheClass(), "'numbers' is an iterator (count)"),
        (RememberingInTheModule(), "'SEEN' changes from record to record"),
        (Known(), "'known' changes from record to record"),
        (Known().__call__, "'known' changes from record to record"),
        (NestedKnown(), "'known' changes from record to record"),
        (count_values, "'COUNTS' changes from record to record"),
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
)
def test_state_that_a_restart_would_lose_is_refused_for_flink(function, state):
    text = findings(STREAM.map("f", function))

    assert "step 'f': its function (" in text
    assert "test_lost_state.py:" in text
    assert state in text
    assert "open(context)" in text


def test_an_open_file_and_a_socket_are_refused(tmp_path):
    with (tmp_path / "x").open("w") as file, socket.socket() as client:
        assert "'thing' is an open file" in findings(STREAM.map("f", closure_over(file)))
        assert "'thing' is a socket" in findings(STREAM.map("f", closure_over(client)))


@pytest.mark.parametrize(
    ("function", "state"),
    [
        (method_without_source("self.count += 1"), "'count' changes from record to record"),
        (method_without_source("self.tags.append(1)"), "'tags' changes from record to record"),
        (without_source("def f(r):\n    SEEN.add(r.id)", SEEN=SEEN), "'SEEN' changes"),
        (without_source("f = lambda r: SEEN.add(r.id)", SEEN=SEEN), "'SEEN' changes"),
        (without_source("def f(r):\n    global TOTAL\n    TOTAL = 1"), "'TOTAL' changes"),
    ],
)
def test_lost_state_is_found_in_byte_code_where_there_is_no_source(function, state):
    assert state in findings(STREAM.map("f", function))


def test_lost_state_is_found_in_a_lambda_of_a_chain_of_calls():
    graph = (
        STREAM.map("value", lambda record: record.value)
        .map("seen", lambda record: SEEN.add(record.id))
    )  # fmt: skip
    found = findings(graph)

    assert "step 'seen'" in found
    assert "'SEEN' changes from record to record" in found


WORDS = {"one": 1}


@pytest.mark.parametrize(
    "function",
    [
        CountingSinceOpen(),
        CountingSinceOpenOfTheBase(),
        CountingSinceReset(),
        ToAnotherObject(),
        method_without_source("record.tags = self.tags; record.count += 1; record.tags.pop()"),
        KnownSinceOpen(),
        LocalOfTheSameName(),
        SuffixSinceOpen(),
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
