"""Functions of fields in the JVM: the records and dead letters that Python makes of the same."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from minicluster import LOCAL, QUIET, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import Graph, Stream
from sage_flink.flow.lists import ListSource
from sage_flink.operators import Select, Where, measure

pytestmark = [pytest.mark.flink, pytest.mark.timeout(240), *QUIET]

DRAWN = settings(
    max_examples=600,
    database=None,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats()
cells = st.none() | st.booleans() | numbers | st.text() | st.binary() | st.just([1]) | st.just({})
columns = st.fixed_dictionaries({}, optional=dict.fromkeys(("n", "text", "it's"), cells))
texts = st.text() | st.just("kept")
good = st.fixed_dictionaries({"n": numbers, "text": texts, "it's": st.text()})
times = st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**13), 10**13)


def records() -> tuple[Record, ...]:
    """Records of any id, value and time, and a delete."""
    made: list[Record] = []

    @DRAWN
    @given(st.text(), good | columns | cells, times)
    def collect(text: str, value: Any, time_ms: int) -> None:
        id_ = f"{text}/{len(made)}"
        made.append(Record(id_, value, time_ms, b"k", {"h": b"1"}, id_))

    collect()
    return (*made, Record("d", None).delete_of("document", id="d"))


@dataclass(frozen=True)
class AnySink(FileSink):
    """A sink of upserts and deletes."""

    supports_deletes: ClassVar[bool] = True


#: Step -> how it is added to the records.
STEPS: dict[str, Callable[[Stream], Stream]] = {
    "measure": lambda read: read.flat_map(
        "measure", measure("m", fields=("n", "text"), tags=("it's",))
    ),
    "select": lambda read: read.map("select", Select(("text", "it's"))),
    "where": lambda read: read.filter("where", Where("text", "kept")),
}


def graph(folder: Path, given_: tuple[Record, ...]) -> Graph:
    ends = [
        add(sage.flow.read(f"{step}.in", ListSource(given_))).write(
            f"{step}.out", sink(folder, step)
        )
        for step, add in STEPS.items()
    ]
    return sage.flow.pipeline(*ends).dead_letters_to(FileSink(str(folder / "failed")))


def sink(folder: Path, step: str) -> AnySink:
    return AnySink(str(folder / step))


def test_the_jvm_does_what_python_does(tmp_path: Path, minicluster: None) -> None:
    given_ = records()
    (here := tmp_path / "here").mkdir()
    (there := tmp_path / "there").mkdir()
    outcome = asyncio.run(sage.flow.run(graph(here, given_)))
    expected = {step: sink(here, step).read_records() for step in STEPS}
    count = len(outcome.failed) + sum(map(len, expected.values()))

    sage.flow.submit(graph(there, given_), name="fields", options=LOCAL)
    failed = FileSink(str(there / "failed"))

    def made() -> int:
        return failed.count() + sum(sink(there, step).count() for step in STEPS)

    wait_until(lambda: made() >= count, 120, "all records")

    for step, records_ in expected.items():
        assert len(records_) > 30, step
        found = {record.id: repr(record) for record in sink(there, step).read_records()}
        assert found == {record.id: repr(record) for record in records_}
    letters = [from_message(record) for record in failed.read_records()]
    assert Counter((letter.step, letter.id, letter.reason) for letter in letters) == Counter(
        (letter.step, letter.id, letter.reason) for letter in outcome.failed
    )
    assert {letter.step for letter in letters} == STEPS.keys()
    assert made() == count
