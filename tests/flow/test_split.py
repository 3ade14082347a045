"""Stream.split: each record in one branch, the same on every target."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minicluster import QUIET, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import PipelineError, Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions, Graph, OpenContext
from sage_flink.flow.lists import ListSink, ListSource

pytestmark = QUIET


def records(values: list[Any]) -> tuple[Record, ...]:
    return tuple(Record(f"r{n}", value, origin=f"r{n}") for n, value in enumerate(values))


def is_big(record: Record) -> bool:
    return record.value > 100


def is_even(record: Record) -> bool:
    return record.value % 2 == 0


def is_third(record: Record) -> bool:
    return 30 // record.value and record.value % 3 == 0


PREDICATES = {"big": is_big, "even": is_even, "third": is_third}


def split_into(values: list[Any], rest: str | None, sinks: dict[str, Any]) -> Graph:
    numbers = sage.flow.read("in", ListSource(records(values)))
    branches = numbers.split("kind", PREDICATES, rest=rest)
    return sage.flow.pipeline(*(branches[name].write(name, sinks[name]) for name in branches))


def run(values: list[Any], rest: str | None = None) -> tuple[dict[str, list[Any]], list[Any]]:
    names = [*PREDICATES, *([rest] if rest else [])]
    graph = split_into(values, rest, {name: ListSink() for name in names})
    outcome = asyncio.run(sage.flow.run(graph))
    written = {name: [record.value for record in outcome.written[name]] for name in names}
    return written, outcome.failed


def test_a_record_goes_to_the_first_predicate_that_is_true():
    written, failed = run([102, 101, 4, 9, 6, 7], rest="others")

    assert written == {"big": [102, 101], "even": [4, 6], "third": [9], "others": [7]}
    assert failed == []


def test_without_a_rest_a_record_that_matches_none_is_dropped():
    written, failed = run([7, 9])

    assert written == {"big": [], "even": [], "third": [9]}
    assert failed == []


@given(st.lists(st.one_of(st.integers(-50, 200), st.text(max_size=2), st.none()), max_size=40))
def test_every_record_is_in_one_branch_or_one_dead_letter(values):
    written, failed = run(values, rest="others")

    assert sum(map(len, written.values())) + len(failed) == len(values)
    assert len({one.id for one in failed}) == len(failed)


def test_a_predicate_that_raises_makes_one_dead_letter_of_its_own_branch():
    written, failed = run(["text", 7], rest="others")

    assert written["others"] == [7]
    [letter] = failed
    assert (letter.id, letter.step) == ("r0", "kind.big")
    assert letter.reason.startswith("TypeError: '>' not supported")
    assert "(test_split.py:" in letter.reason


def test_explain_names_the_predicates_of_a_branch():
    graph = split_into([], None, {name: ListSink() for name in PREDICATES})

    assert "FirstMatch(own=is_third, earlier=(is_big, is_even))" in sage.flow.explain(graph)


@dataclass
class AboveLimit:
    """A predicate with a resource, which is made where it runs."""

    limit: int

    def open(self, context: OpenContext) -> None:
        self.opened = self.limit

    def close(self) -> None:
        del self.opened

    def __call__(self, record: Record) -> bool:
        return record.value > self.opened


def test_predicates_are_opened_in_their_own_branch_and_in_those_after_it():
    numbers = sage.flow.read("in", ListSource(records([1, 20, 300])))
    split = numbers.split("size", {"l": AboveLimit(100), "m": AboveLimit(10)}, rest="s")
    graph = sage.flow.pipeline(*(split[name].write(f"{name}-out", ListSink()) for name in "lms"))

    outcome = asyncio.run(sage.flow.run(graph))

    values = {name: [record.value for record in rows] for name, rows in outcome.written.items()}
    assert values == {"l-out": [300], "m-out": [20], "s-out": [1]}
    assert outcome.failed == []


def counted() -> Any:
    seen: list[str] = []

    def predicate(record: Record) -> bool:
        seen.append(record.id)
        return True

    return predicate


async def awaited(record: Record) -> bool:
    return True


@pytest.mark.parametrize(
    ("predicates", "rest", "flaw"),
    [
        ({}, None, "predicates must be functions of a record by branch"),
        ({"big": is_big}, "big", "rest must be a name of its own, got 'big'"),
        ({"big": "x > 1"}, None, "branch 'big': the predicate must be a callable"),
        ({"big": counted()}, None, r"branch 'big': its predicate \(.*test_split.py:\d+\) keeps"),
        ({"big": awaited}, None, "branch 'big': must be a plain function"),
        ({"a/b ": is_big}, None, "name"),
    ],
)
def test_what_cannot_be_split_is_refused_where_it_is_written(predicates, rest, flaw):
    with pytest.raises(PipelineError, match=flaw):
        sage.flow.read("in", ListSource(())).split("kind", predicates, rest=rest)


@pytest.mark.flink
@pytest.mark.timeout(240)
def test_on_flink_the_branches_are_those_in_process(tmp_path, minicluster):
    values = [*range(1, 150), "text", None, 0]
    here, failed = run(values, rest="others")
    sinks = {name: FileSink(str(tmp_path / name)) for name in [*here, "failed"]}
    graph = split_into(values, "others", sinks).dead_letters_to(sinks["failed"])

    sage.flow.submit(graph, name="split", options=FlinkOptions(target="local", parallelism=2))
    wait_until(lambda: sum(s.count() for s in sinks.values()) >= len(values), 120, "all records")

    for name, found in here.items():
        assert sorted(r.value for r in sinks[name].read_records()) == sorted(found)
    letters = {
        (one.id, one.step, one.reason) for one in map(from_message, sinks["failed"].read_records())
    }
    assert letters == {(one.id, one.step, one.reason) for one in failed}
    assert len(letters) == 2
