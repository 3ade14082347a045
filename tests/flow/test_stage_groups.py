"""A group of elements goes through a Python stage as each of them alone would."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics import Metrics

from sage_flink.common import Record, Rejected, decode, encode
from sage_flink.flow import FlatMap
from sage_flink.flow.flink.python_steps import FlatMapStep
from sage_flink.flow.flink.stage import Stage

# Beam, which PyFlink loads, warns of its own age; the class of the warning is pyparsing's.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

GROUP = b"\xc1"


def make(record):
    """As many children as the value says; none, or a failure where it is below 0."""
    if record.value < 0:
        raise Rejected("negative")
    return [b"x" * record.value] * record.value


def stage():
    opened = Stage((FlatMapStep(FlatMap("f", "in", make)),), "job", "job")
    opened.open(Metrics())
    return opened


def group(elements):
    return GROUP + msgspec.msgpack.encode(elements)


def ungrouped(outputs):
    """Main outputs, and failures, each in their order."""
    main: list[bytes] = []
    failed: list[bytes] = []
    for out in outputs:
        if isinstance(out, tuple):
            failed.append(out[1])
        elif out[:1] == GROUP:
            main += msgspec.msgpack.decode(out[1:], type=list[bytes])
        else:
            main.append(out)
    return main, failed


def counted(outputs):
    """Records and failures in their order, and the sums of all counter deltas."""
    main, failed = ungrouped(outputs)
    counts = Counter()
    for out in main:
        if is_delta(out):
            counts.update(msgspec.msgpack.decode(out))
    return [out for out in main if not is_delta(out)], failed, dict(counts)


def is_delta(out):
    return out[0] & 0xF0 == 0x80


def element(n, value):
    return encode(Record(f"r{n}", value))


@given(st.lists(st.integers(-1, 3), max_size=20))
def test_a_group_has_the_outputs_of_its_elements_in_their_order(values):
    elements = [element(n, value) for n, value in enumerate(values)]
    opened = stage()

    alone = [out for one in elements for out in opened.process_element(one, None)]

    together = list(opened.process_element(group(elements), None))

    (records, failed, counts), (*expected, each) = counted(together), counted(alone)
    assert [records, failed] == expected
    assert counts == {name: count for name, count in each.items() if count}
    assert sum(map(is_delta, ungrouped(together)[0])) <= 1


def test_the_outputs_of_a_group_leave_together():
    outputs = list(stage().process_element(group([element(n, 1) for n in range(16)]), None))

    assert len(outputs) == 1


def test_large_outputs_of_a_group_leave_in_several_elements():
    outputs = list(stage().process_element(group([element(n, 600) for n in range(3)]), None))

    assert 3 <= len(outputs) <= 6
    main, _ = ungrouped(outputs)
    assert len([out for out in main if not is_delta(out)]) == 1_800


def test_a_group_without_outputs_has_none():
    main, failed = ungrouped(stage().process_element(group([element(0, -1)]), None))

    (delta,) = main
    assert msgspec.msgpack.decode(delta) == {"f.read": 1, "f.dead_lettered": 1}
    assert decode(failed[0]).id == "r0"
