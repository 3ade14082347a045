"""An output that cannot be encoded is a dead letter of the step that made it, on both targets."""

import asyncio
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from metrics import Metrics

import sage_flink as sage
from sage_flink.common import Record, decode, encode
from sage_flink.common.dead_letters import DeadLetter, from_message
from sage_flink.flow import Call, FlatMap
from sage_flink.flow.flink.python_steps import AnswerStep, FlatMapStep, RequestStep
from sage_flink.flow.flink.stage import Stage, Step
from sage_flink.flow.functions import Map
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference import EchoPool
from sage_flink.operators import DecodeDocument

# Beam, which PyFlink loads, warns of its own age; the class of the warning is pyparsing's.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RECORD = Record("t/0/1", b"x", 5, b"k", {"h": b"v"}, "t/0/1")


def message(**fields: Any) -> Record:
    return RECORD.replace(value=json.dumps({"id": "a", "text": "x", **fields}).encode())


def repeat(record: Record) -> list[Any]:
    return ["fine", object()]


def surrogate_name(record: Record) -> list[Record]:
    return [record.replace(id="\ud800")]


def late(record: Record) -> Record:
    return record.replace(timestamp_ms=2**63)


def text_in_headers(record: Record) -> Record:
    return record.replace(headers={"h": "text"})


def named_key(record: Record) -> Record:
    return record.replace(key="k")


#: function, the record it gets, and the start of the reason
OUTPUTS: dict[str, tuple[Any, Record, str]] = {
    "an object": (Map(lambda record: object()), RECORD, "the record cannot be encoded: TypeError"),
    "one of several": (repeat, RECORD, "the record cannot be encoded: TypeError"),
    "numpy": (Map(lambda r: np.int64(1)), RECORD, "the record cannot be encoded: TypeError"),
    "a large number": (Map(lambda r: 2**64), RECORD, "the record cannot be encoded: OverflowError"),
    "a lone surrogate": (
        Map(lambda record: {"title": "\ud800"}),
        RECORD,
        "the record cannot be encoded: UnicodeEncodeError",
    ),
    "a lone surrogate as id": (
        surrogate_name,
        RECORD,
        "the record cannot be encoded: UnicodeEncodeError",
    ),
    "a time that Java cannot read": (
        Map(late),
        RECORD,
        "the record's timestamp_ms must be a whole number of 64 bits, got 9223372036854775808",
    ),
    "text as a header": (Map(text_in_headers), RECORD, "the record's headers must be"),
    "text as the key": (Map(named_key), RECORD, "the record's key must be bytes or None, got 'k'"),
    "a document of 2**64 ms": (
        DecodeDocument(),
        message(modified_ms=2**64),
        "field 'modified_ms' must be milliseconds since 1970, before the year 2262, got 1844674407",
    ),
    "a document of 2**63 ms": (
        DecodeDocument(),
        message(modified_ms=2**63),
        "field 'modified_ms' must be milliseconds since 1970, before the year 2262, got 9223372036",
    ),
}


def run_stage(item: bytes, *steps: Step) -> tuple[list[bytes], list[DeadLetter]]:
    """The items and dead letters of a stage."""
    stage = Stage(steps, "job", "job", counted=False)
    stage.open(Metrics())
    out = list(stage.process_element(item, None))
    failed = [from_message(decode(made[1])) for made in out if isinstance(made, tuple)]
    return [made for made in out if isinstance(made, bytes)], failed


def keep(name: str) -> FlatMapStep:
    return FlatMapStep(FlatMap(name, "in", lambda record: [record]))


def author_of(function: Any) -> Any:
    inner = function.function if isinstance(function, Map) else function
    return getattr(inner, "__code__", None) or type(inner).__call__.__code__


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_that_cannot_be_encoded_is_a_dead_letter_of_its_step(output, where):
    function, record, reason = OUTPUTS[output]
    step = FlatMapStep(FlatMap("f", "in", function))
    steps = (keep("before"), step) if where == "last" else (step, keep("behind"))

    out, (letter,) = run_stage(encode(record), *steps)

    assert out == []
    assert letter.step == "f"
    assert letter.reason.startswith(reason)
    assert letter.record() == record
    if reason.startswith("the record"):
        code = author_of(function)
        assert letter.reason.endswith(f".py:{code.co_firstlineno})")


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_in_process_target_gives_the_same_reason(output):
    function, record, _ = OUTPUTS[output]
    source = sage.flow.read("in", ListSource((record,)))
    graph = source.flat_map("f", function).write("out", ListSink())

    outcome = asyncio.run(sage.flow.run(graph))

    _, (letter,) = run_stage(encode(record), FlatMapStep(FlatMap("f", "in", function)))
    assert [(failed.step, failed.reason) for failed in outcome.failed] == [("f", letter.reason)]
    assert outcome.written == {"out": []}


def test_each_output_of_a_stage_is_the_wire_form_of_its_record():
    children = FlatMapStep(FlatMap("f", "in", lambda record: ["a", {"b": 1}]))

    for steps in ((children,), (children, keep("behind"))):
        out, failed = run_stage(encode(RECORD), *steps)

        wanted = [RECORD.child("f", 0, "a"), RECORD.child("f", 1, {"b": 1})]
        assert ([decode(made) for made in out], failed) == (wanted, [])


def test_a_number_too_long_to_print_is_a_dead_letter():
    def fail(record):
        raise KeyError(10**5000)

    _, (letter,) = run_stage(encode(RECORD), FlatMapStep(FlatMap("f", "in", fail)))

    assert letter.reason.startswith("KeyError: its message raised ValueError (test_stage_outputs")


@pytest.mark.parametrize("ending", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
def test_what_ends_a_program_elsewhere_is_a_dead_letter(ending):
    def leave(record):
        raise ending

    source = sage.flow.read("in", ListSource((RECORD,)))
    graph = source.flat_map("f", leave).write("out", ListSink())

    _, (letter,) = run_stage(encode(RECORD), FlatMapStep(FlatMap("f", "in", leave)))
    outcome = asyncio.run(sage.flow.run(graph))

    assert letter.reason.startswith(f"{type(ending).__name__}: ")
    assert [failed.reason for failed in outcome.failed] == [letter.reason]


def test_ctrl_c_ends_a_run_in_this_process():
    def interrupt(record):
        raise KeyboardInterrupt

    source = sage.flow.read("in", ListSource((RECORD,)))
    graph = source.flat_map("f", interrupt).write("out", ListSink())

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(sage.flow.run(graph))


def refusal_signal(element: bytes) -> bytes:
    return msgspec.msgpack.encode({"refused": element})


def test_an_element_that_ended_its_workers_is_a_dead_letter_of_the_first_step():
    steps = (keep("first"), keep("second"))

    out, (letter,) = run_stage(refusal_signal(encode(RECORD)), *steps)

    assert out == []
    assert (letter.step, letter.record()) == ("first", RECORD)
    assert letter.reason.startswith("two Python workers ended while they ran first, second on")


def test_the_result_of_a_call_that_ended_its_workers_is_a_dead_letter_of_the_call():
    step = AnswerStep(call(Spec()))

    _, (letter,) = run_stage(refusal_signal(native_result(RECORD)), step)

    assert (letter.step, letter.attempts, letter.record()) == ("ask", 3, RECORD)


def test_a_stage_is_opened_by_a_signal_without_an_output():
    assert run_stage(b"\x80", keep("f")) == ([], [])


def test_a_refused_element_is_counted_once():
    stage = Stage((keep("first"), keep("second")), "job", "job")
    stage.open(Metrics())

    *_, delta = stage.process_element(refusal_signal(encode(RECORD)), None)

    assert msgspec.msgpack.decode(delta) == {"first.read": 1, "first.dead_lettered": 1}


QUESTION = b'{"model": "m", "messages": [{"role": "user", "content": "to be"}]}'


class Spec:
    """A call that returns whatever it is made with."""

    mode, path, model = "post", "/v1/chat/completions", "m"

    def __init__(self, body: Any = QUESTION, answer: Any = None) -> None:
        self.body, self.made = body, answer

    def request(self, record: Record) -> Any:
        return self.body

    def answer(self, record: Record, body: bytes) -> Any:
        return self.made


def call(spec: Spec) -> Call:
    return Call("ask", "in", spec, capacity=1, timeout_s=5)


@pytest.mark.parametrize("body", [object(), {"a": 1}, "text", None], ids=lambda b: type(b).__name__)
def test_a_request_that_is_not_bytes_is_a_dead_letter(body):
    node = call(Spec(body))

    out, (letter,) = run_stage(encode(RECORD), RequestStep(node, "job"))

    assert out == []
    reason = f"the request must be bytes, got {type(body).__name__}"
    assert (letter.step, letter.reason) == ("ask", reason)
    assert run_locally(node.spec) == [("ask", reason)]


def test_a_call_request_that_cannot_be_encoded_is_a_dead_letter():
    (failed,) = RequestStep(call(Spec()), "job").outcomes(RECORD.replace(id="\ud800"))

    assert (failed.step, failed.reason[:18]) == ("ask", "UnicodeEncodeError")


def native_result(record: Record, status: int = 200) -> bytes:
    return msgspec.msgpack.encode((encode(record), status, 3, "", b"{}"))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (RECORD.replace(value=object()), "the record cannot be encoded: TypeError"),
        (RECORD.replace(timestamp_ms=2**63), "the record's timestamp_ms must be a whole number"),
        ({"answer": 1}, "the answer must be a Record, got dict"),
        (
            RECORD.delete_of("doc", id="d"),
            "the call returned a delete; emit it in a flat_map with a function that declares",
        ),
    ],
)
@pytest.mark.parametrize("behind", [(), (keep("behind"),)], ids=["last", "first"])
def test_an_answer_that_cannot_leave_the_call_is_a_dead_letter(made, reason, behind):
    spec = Spec(answer=made)

    out, (letter,) = run_stage(native_result(RECORD), AnswerStep(call(spec)), *behind)

    assert out == []
    assert (letter.step, letter.attempts, letter.record()) == ("ask", 3, RECORD)
    assert letter.reason.startswith(reason)
    assert run_locally(spec) == [("ask", letter.reason)]


def run_locally(spec: Spec) -> list[tuple[str, str]]:
    stream = sage.flow.read("in", ListSource((RECORD,)))
    graph = stream.call("ask", spec, capacity=1, timeout_s=5).write("out", ListSink())
    outcome = asyncio.run(sage.flow.run(graph, pool=EchoPool()))
    return [(failed.step, failed.reason) for failed in outcome.failed]


@pytest.mark.parametrize("behind", [(), (keep("behind"),)], ids=["last", "first"])
def test_a_record_without_a_call_passes_the_answer_unchanged(behind):
    delete = RECORD.delete_of("doc", id="d")
    step = AnswerStep(call(Spec(answer="never")))

    out, failed = run_stage(native_result(delete, status=0), step, *behind)

    assert ([decode(made) for made in out], failed) == ([delete], [])
