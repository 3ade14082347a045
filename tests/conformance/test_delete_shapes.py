"""A value shaped like a delete is data on every target, in YAML graphs and in dead letters."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from delete_shapes import SHAPED_LIKE_DELETES
from minicluster import QUIET, FileSink, restore_environment, wait_for_workers
from waiting import wait_until

import sage_connectors
import sage_flink as sage
from sage_connectors import kafka
from sage_flink import db, operators
from sage_flink.common import Record
from sage_flink.flow import FlinkOptions, Graph
from sage_flink.flow.lists import ListSink, ListSource

BYTES = [json.dumps(shape).encode() for shape in SHAPED_LIKE_DELETES]
RECORDS = tuple(
    Record(f"r{n}", value, key=f"k{n}".encode(), origin=f"r{n}")
    for n, value in enumerate([*SHAPED_LIKE_DELETES, *BYTES, None])
)


@dataclass(frozen=True)
class Identity:
    """The record itself, and a child with the same value."""

    def __call__(self, record: Record) -> Iterable[Any]:
        yield record
        yield record.value


def pipeline_to(sink: Any) -> Graph:
    return sage.flow.read("in", ListSource(RECORDS)).flat_map("same", Identity()).write("out", sink)


def assert_data(stored: Iterable[Record]) -> None:
    """Each value twice, and no record is a delete."""
    rows = list(stored)
    assert {row.kind for row in rows} == {"upsert"}
    assert {row.id: row.value for row in rows} == {
        **{record.id: record.value for record in RECORDS},
        **{record.child("same", 1, None).id: record.value for record in RECORDS},
    }


def test_in_process() -> None:
    sink = ListSink()

    outcome = asyncio.run(sage.flow.run(pipeline_to(sink)))

    assert_data(sink.rows.values())
    assert outcome.failed == []


@pytest.fixture
def cluster() -> Iterable[None]:
    yield from restore_environment()
    wait_for_workers()


@pytest.mark.flink
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("cluster")
class TestOnFlink:
    pytestmark = QUIET

    def test_in_a_mini_cluster(self, tmp_path: Path) -> None:
        sink, failed = FileSink(str(tmp_path / "rows")), FileSink(str(tmp_path / "failed"))

        options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
        sage.flow.submit(
            pipeline_to(sink).dead_letters_to(failed), name="delete-shapes", options=options
        )
        wait_until(lambda: sink.count() >= 2 * len(RECORDS), 120, "all records")

        assert_data(sink.read_records())
        assert failed.read_records() == []


YAML = """
steps:
  - read: in
    from: {kafka: {topic: in}}
  - flat_map: rows
    input: in
    with: drop_deletes
  - write: out
    input: rows
    into: {collection: {name: docs, dim: 2}}
"""


def test_in_a_yaml_graph() -> None:
    words = sage.flow.vocabulary(sage_connectors, db, operators)
    sink = ListSink()

    graph = sage.flow.from_yaml(YAML, words).dead_letters_to(kafka("dead"))
    asyncio.run(sage.flow.run(graph, sources={"in": ListSource(RECORDS)}, sinks={"out": sink}))

    assert sink.rows == {record.id: record for record in RECORDS}
