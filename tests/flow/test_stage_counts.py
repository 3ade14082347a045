"""Counter deltas in the output of a Python stage: together with its records they are exact."""

from collections import Counter
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics import Metrics

import sage_flink as sage
from sage_flink.common import Record, Rejected, decode, encode
from sage_flink.common.records import encode_many
from sage_flink.flow import BatchLimits, Call, FlatMap, Refusal
from sage_flink.flow.flink.python_steps import AnswerStep, FlatMapStep
from sage_flink.flow.flink.stage import Stage
from sage_flink.flow.flink.write_step import WriteStep

# Beam, which PyFlink loads, warns of its own age; the class of the warning is pyparsing's.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def repeat(record):
    """``a`` children with the value ``b``; the record is rejected if ``a`` is negative."""
    if record.value["a"] < 0:
        raise Rejected("negative")
    return [{"b": record.value["b"]}] * record.value["a"]


def halve_even(record):
    """The record where b is even; odd ones are rejected, zero is dropped."""
    if record.value["b"] % 2:
        raise Rejected("odd")
    return [record.value["b"]] if record.value["b"] else []


def stage():
    steps = (FlatMapStep(FlatMap("a", "in", repeat)), FlatMapStep(FlatMap("b", "a", halve_even)))
    return Stage(steps, "job", "job")


def run(stage, values):
    """The output of the stage: records, counter deltas, and the number of failed records."""
    records, deltas, failed = [], [], 0
    stage.open(Metrics())
    for value in values:
        for out in stage.process_element(value, None):
            if isinstance(out, tuple):
                failed += 1
            elif 0x80 <= out[0] <= 0x8F:
                deltas.append(msgspec.msgpack.decode(out))
            else:
                records.append(out)
    return records, deltas, failed


def sum_of_counters(stage, records, deltas):
    """The sums that the native operators make."""
    counts = Counter()
    for name in stage.passthrough_counters():
        counts[name] += len(records)
    for delta in deltas:
        counts.update(delta)
    return {name: n for name, n in counts.items() if n}


def record(a, b):
    return encode(Record("r", {"a": a, "b": b}))


def test_passthrough_records_emit_no_counter_delta():
    made = stage()

    records, deltas, failed = run(made, [record(1, 2), record(1, 4)])

    assert [decode(out).value for out in records] == [2, 4]
    assert (deltas, failed) == ([], 0)
    assert sum_of_counters(made, records, deltas) == {
        "a.read": 2,
        "a.emitted": 2,
        "b.read": 2,
        "b.emitted": 2,
    }


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 3)), max_size=20))
def test_every_record_and_every_child_is_counted(pairs):
    made = stage()

    records, deltas, failed = run(made, [record(a, b) for a, b in pairs])

    into_b = [(b, n) for n, b in pairs for _ in range(n)]
    wanted = {
        "a.read": len(pairs),
        "a.emitted": len(into_b),
        "a.dead_lettered": sum(n < 0 for n, _ in pairs),
        "b.read": len(into_b),
        "b.emitted": sum(b == 2 for b, _ in into_b),
        "b.dead_lettered": sum(b % 2 for b, _ in into_b),
    }
    assert sum_of_counters(made, records, deltas) == {k: n for k, n in wanted.items() if n}
    assert failed == wanted["a.dead_lettered"] + wanted["b.dead_lettered"]
    assert len(deltas) <= len(pairs)


@dataclass(frozen=True)
class RefusingSink:
    """A sink that refuses odd values."""

    batch: BatchLimits = field(default_factory=BatchLimits)

    def writer(self):
        return self

    def write(self, records):
        return [Refusal(r, "odd") for r in records if r.value % 2]

    def close(self):
        """No resource is open."""


def test_acknowledged_records_count_as_written_and_refused_ones_do_not():
    made = Stage((WriteStep("out", RefusingSink()),), "job", "job")
    batch = encode_many([Record(str(n), n) for n in range(5)])

    records, deltas, failed = run(made, [batch, batch])

    assert (records, failed) == ([], 4)
    assert sum_of_counters(made, records, deltas) == {
        "out.read": 10,
        "out.written": 6,
        "out.dead_lettered": 4,
    }


def test_a_result_of_another_request_is_counted_as_merged():
    call = Call("ask", "in", sage.completion(model="m"), capacity=1, timeout_s=1)
    made = Stage((AnswerStep(call),), "job", "job")
    body = b'{"choices": [{"text": "x"}]}'

    def result(status, attempts, reason=""):
        return msgspec.msgpack.encode((record(1, 1), status, attempts, reason, body))

    outs = [result(200, 2), result(200, 0), result(200, 0), result(0, 0), result(0, 0, "late")]
    records, deltas, failed = run(made, outs)

    assert (len(records), failed) == (4, 1)
    assert sum_of_counters(made, records, deltas) == {
        "ask.answered": 5,
        "ask.emitted": 4,
        "ask.merged": 2,
        "ask.dead_lettered": 1,
    }
