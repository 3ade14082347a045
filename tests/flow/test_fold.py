"""A fold in process: its outputs, compared with a loop in plain Python, and what is refused."""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from fold_values import count, event, run, stream, values
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import PipelineError, Record, derived_id
from sage_flink.flow import (
    Fold,
    OpenContext,
    Refusal,
    check,
    explain,
    from_yaml,
    lists,
    to_yaml,
    vocabulary,
)
from sage_flink.flow.lists import ListSink

BAD = "bad"


def total(state: dict[str, Any], record: Record) -> tuple[dict[str, Any], list[Any]]:
    """The sum and the last values of a key; it changes the state before it raises."""
    state["sum"] += len(str(record.value))
    state["last"].append(record.value)
    if record.value == BAD:
        raise ValueError("not this one")
    return state, [state["sum"], record] if state["sum"] % 2 else []


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b""]), st.sampled_from(["x", "yy", BAD, 3])))
)
def test_a_fold_makes_what_a_loop_in_python_makes(events: Any) -> None:
    records = [event(number, value, key) for number, (key, value) in enumerate(events)]

    outcome = run(stream(*records).fold("total", total, initial={"sum": 0, "last": []}))

    sums, expected, refused = defaultdict[bytes | None, int](int), [], []
    for record in records:
        if record.value == BAD:
            refused.append(record.id)
            continue
        sums[record.key] += len(str(record.value))
        if sums[record.key] % 2:
            expected.append(record.child("total", 0, sums[record.key]))
            expected.append(record)
    assert outcome.written["out"] == expected
    assert [failed.id for failed in outcome.failed] == refused


def test_outputs_are_values_with_derived_ids_or_records() -> None:
    def both(state: int, record: Record) -> tuple[int, list[Any]]:
        return state, ["a", Refusal(event(9, 1), "no"), record.replace(id="own"), "b"]

    outcome = run(stream("x").fold("both", both, initial=0))

    ids = [derived_id("t/0/0", "both", 0), "own", derived_id("t/0/0", "both", 3)]
    assert [record.id for record in outcome.written["out"]] == ids
    first = outcome.written["out"][0]
    assert (first.key, first.headers, first.timestamp_ms) == (b"k", {"h": b"x"}, 7)
    assert [(letter.id, letter.reason) for letter in outcome.failed] == [("t/0/9", "no")]


def test_a_record_without_a_key_is_a_dead_letter() -> None:
    delete = Record("d", None, 7, b"k", kind="delete", document="x")

    outcome = run(
        stream(event(0, 1, None), event(1, 1, b""), event(2, 1, b"")).fold("n", count, initial=5)
    )

    assert [record.value for record in outcome.written["out"]] == [5, 6]
    reason = "has no key: put .key_by(name, field) before this step"
    assert [(letter.id, letter.reason) for letter in outcome.failed] == [("t/0/0", reason)]
    with pytest.raises(PipelineError, match="'n': takes no deletes"):
        run(stream(delete).fold("n", count, initial=0))


def test_a_delete_is_made_only_by_a_function_that_declares_it() -> None:
    outcome = run(stream("x").fold("end", Ends(), initial=0))

    (failed,) = outcome.failed
    assert failed.reason == "the function returned a delete; declare emits_deletes = True on it"
    declared = stream("x").fold("end", EndsDeclared(), initial=0)
    with pytest.raises(PipelineError, match="'c': takes no deletes, and step 'end' emits them"):
        check(declared.changes_only("c").write("out", ListSink()), "local")


class Ends:
    def __call__(self, state: int, record: Record) -> Any:
        return state, [record.delete_of("x", id="d")]


class EndsDeclared(Ends):
    emits_deletes = True


async def awaited(state: int, record: Record) -> Any:
    return state, []


@pytest.mark.parametrize(
    ("function", "options", "flaw"),
    [
        (5, {}, "a callable taking a state and a Record"),
        (len, {}, "a callable taking a state and a Record"),
        (lambda record: [record], {}, "a callable taking a state and a Record"),
        (awaited, {}, "must be a plain function, got a coroutine function"),
        (count, {"initial": object()}, "initial must be what MessagePack can say"),
        (count, {"initial": b"x" * 10_000_001}, "initial must be what MessagePack can say"),
        (count, {"ttl_s": 0}, "0.001 or more"),
        (count, {"ttl_s": "60"}, "0.001 or more"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_written(
    function: Any, options: Any, flaw: str
) -> None:
    with pytest.raises(PipelineError, match=flaw):
        stream().fold("f", function, **{"initial": 0, **options})


SEEN: dict[bytes | None, int] = {}


def remembers(record: Record) -> list[int]:
    SEEN[record.key] = SEEN.get(record.key, 0) + 1
    return [SEEN[record.key]]


def test_a_function_that_keeps_state_of_its_own_is_refused_and_told_of_fold() -> None:
    def folds(state: int, record: Record) -> Any:
        SEEN[record.key] = state
        return state, []

    for step in (
        stream().flat_map("f", remembers),
        stream().fold("f", folds, initial=0),
    ):
        graph = step.write("out", ListSink()).dead_letters_to(ListSink())
        with pytest.raises(PipelineError, match=r"'SEEN' changes.*\.fold\(name, function, initial"):
            check(graph)


@dataclass
class Opened:
    """Counts in steps of ``by``, which ``open`` sets."""

    by: int = 0

    def open(self, context: OpenContext) -> None:
        self.by = len(context.step)

    def __call__(self, state: int, record: Record) -> tuple[int, list[int]]:
        return state + self.by, [state]


def test_the_function_is_opened_where_it_runs() -> None:
    assert values(stream("x", "y", "z").fold("two", Opened(), initial=1)) == [1, 4, 7]
    assert values(stream("x", "y").fold("n", partial(added, 5), initial=1)) == [1, 6]


def added(by: int, state: int, record: Record) -> tuple[int, list[int]]:
    return state + by, [state]


@dataclass(frozen=True)
class CountBy:
    """A word of a vocabulary."""

    step: int

    def __call__(self, state: int, record: Record) -> tuple[int, list[int]]:
        return state + self.step, [state]


YAML = """
steps:
- read: in
  from: {list_source: {rows: []}}
- fold: count
  input: in
  with: {count_by: {step: 2}}
  initial: 0
  ttl_s: 60.0
- write: out
  input: count
  into: {list_sink: {}}
"""
WORDS = {
    "list_source": lists.ListSource,
    "list_sink": lists.ListSink,
    "count_by": CountBy,
    **vocabulary(),
}


def test_a_spec_that_takes_a_state_is_a_fold_in_yaml() -> None:
    graph = from_yaml(YAML, WORDS)

    assert graph.by_name["count"] == Fold("count", "in", CountBy(2), 0, 60.0)
    assert from_yaml(to_yaml(graph, WORDS), WORDS) == graph
    assert "CountBy(step=2) from 0, kept for 60 s" in explain(graph)
    with pytest.raises(PipelineError, match="count_by is for `fold:`, not for `flat_map:`"):
        from_yaml(YAML.replace("fold: count", "flat_map: count"), WORDS)
