"""Operators with resources: opened and closed by each step, on a copy; a bad ``open`` is named."""

import functools
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

import sage_flink as sage
from sage_flink.common import PipelineError, Record
from sage_flink.testing import EchoPool, ListSink, ListSource

RECORDS = (Record("a", "one"), Record("b", "three"), Record("c", ""))
STREAM = sage.flow.read("in", ListSource(RECORDS))


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

    @classmethod
    def text_of(cls, record):
        return str(record.value)


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
        (Resource().__call__, "Resource has open; pass the object itself, not its method$"),
        (
            functools.partial(Resource().__call__),
            "Resource has open; pass the object itself, not a partial of it$",
        ),
        (
            functools.partial(Resource()),
            "Resource has open; pass the object itself, not a partial of it$",
        ),
    ],
)
def test_an_open_that_must_fail_is_refused(operator, message, target):
    for verb in (STREAM.flat_map, STREAM.map, STREAM.filter):
        graph = verb("tag", operator).write("out", ListSink()).dead_letters_to(ListSink())

        with pytest.raises(PipelineError, match=f"step 'tag': {message}"):
            sage.flow.check(graph, target)


def test_a_class_method_needs_no_open():
    graph = STREAM.map("text", Resource.text_of).write("out", ListSink())

    assert sage.flow.check(graph, "local") is graph


async def test_a_plain_dataclass_can_be_opened_and_stays_an_equal_value():
    tag = Tag()

    outcome = await sage.flow.run(STREAM.map("tag", tag).write("out", ListSink()))

    assert outcome.written["out"][0].value == "tag!"
    assert tag == Tag()
    graph = STREAM.map("tag", tag).write("out", ListSink()).dead_letters_to(ListSink())
    assert sage.flow.check(graph) is graph


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
