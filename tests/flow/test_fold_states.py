"""The state of a fold: what can be kept, when it expires, what a failure leaves of it."""

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fold_values import count, event, run, stream, values
from metrics import Metrics

from sage_flink.common import Record, decode, encode
from sage_flink.flow import Fold

HERE = Path(__file__).name
BAD = "bad"


def yields_then_raises(state: list[int], record: Record) -> tuple[list[int], Any]:
    def outputs() -> Any:
        yield len(state)
        state.append(1)
        if record.value == BAD:
            raise ValueError("after its first output")

    return state, outputs()


def test_a_record_that_fails_has_no_output_and_leaves_the_state_as_it_was() -> None:
    outcome = run(stream("x", BAD, "y", "z").fold("count", yields_then_raises, initial=[]))

    assert [record.value for record in outcome.written["out"]] == [0, 1, 2]
    (failed,) = outcome.failed
    line = yields_then_raises.__code__.co_firstlineno + 5
    assert failed.id == "t/0/1"
    assert failed.reason == f"ValueError: after its first output ({HERE}:{line})"


def keeps(state: Any, record: Record) -> Any:
    """The value as the new state; the state before it as the output."""
    kept = {"object": object(), "huge": b"x" * 10_000_001, "big": 2**70}
    if record.value == "nothing":
        return None
    if record.value == "text":
        return state, "text"
    return kept.get(record.value, record.value), [state]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("object", "the state cannot be encoded: TypeError"),
        ("big", "the state cannot be encoded: OverflowError"),
        ("huge", "the state has 10000006 bytes, at most 10000000 are kept"),
        ("nothing", "the function returned NoneType; return the new state and a list"),
        ("text", "the function returned str; return a list, or yield"),
    ],
)
def test_a_state_that_cannot_be_kept_is_a_dead_letter(bad: str, reason: str) -> None:
    outcome = run(stream("a", bad, "b").fold("keep", keeps, initial=None))

    assert [record.value for record in outcome.written["out"]] == [None, "a"]
    (failed,) = outcome.failed
    assert failed.reason.startswith(reason)
    assert "cannot" not in reason or f"({HERE}:{keeps.__code__.co_firstlineno})" in failed.reason


def test_a_state_comes_back_as_messagepack_says() -> None:
    def keep(state: Any, record: Record) -> Any:
        return (1, {2}, {3: None}), [repr(state)]

    assert values(stream("a", "b").fold("keep", keep, initial=())) == ["[]", "[1, [2], {3: None}]"]


def test_a_state_expires_when_its_key_has_had_no_record_for_the_ttl() -> None:
    def slowly(record: Record) -> Any:
        time.sleep(record.value)
        return record.value

    slow = stream(0, 0.02, 0.3, 0).map("slowly", slowly)

    assert values(slow.fold("count", count, initial=0, ttl_s=0.2)) == [0, 1, 0, 1]
    assert values(slow.fold("count", count, initial=0, ttl_s=60)) == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_stage_emits_the_changed_states_of_a_bundle_once() -> None:
    from sage_flink.flow.flink.fold_step import FoldStep
    from sage_flink.flow.flink.stage import FAILED, STATE, Stage

    stage = Stage((FoldStep(Fold("n", "in", keeps, None)),), "job", "job")
    stage.open(Metrics())

    def outputs(element: Any) -> list[Any]:
        made = list(stage.process_element(msgspec.msgpack.encode(element), None))
        is_delta = [isinstance(out, bytes) and out[0] & 0xF0 == 0x80 for out in made]
        kept = [out for out, delta in zip(made, is_delta, strict=True) if not delta]
        return [decode(out).value if isinstance(out, bytes) else out for out in kept]

    def states() -> list[Any]:
        changes = outputs({"states": True})
        assert {tag for tag, _ in changes} <= {STATE}
        return [msgspec.msgpack.decode(change) for _, change in changes]

    a, b, bad = (encode(event(n, v)) for n, v in enumerate(("a", "b", "object")))
    before = msgspec.msgpack.encode("before")
    assert outputs([a, True, before]) == ["before"]
    assert outputs([b, False, None]) == ["a"]
    assert states() == [[b"k", msgspec.msgpack.encode("b")]]
    assert states() == []
    assert outputs([b, True, None]) == [None]  # not the one of the bundle before
    assert [tag for tag, _ in outputs([bad, False, None])] == [FAILED]
    assert states() == [[b"k", msgspec.msgpack.encode("b")]]
    stage.close()
