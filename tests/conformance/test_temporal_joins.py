"""Temporal joins on both targets, compared with DuckDB's ASOF JOIN and with each other."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_truth import asof_join, changelog, left_side
from minicluster import QUIET, FailOnce, FileSink, Slowly
from waiting import wait_until
from window_truth import OUT_OF_ORDER_S

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions, Graph, Stream
from sage_flink.flow.lists import ListSource
from sage_flink.flow.stateful.join_state import Side
from sage_flink.flow.stateful.joins import TemporalJoin
from sage_flink.flow.stateful.temporal_state import TemporalJoinState
from sage_flink.flow.stateful.watermarks import END_MS, Watermarks

pytestmark = [*QUIET, pytest.mark.slow]

Records = tuple[Record, ...]
Parts = tuple[list[Record], list[Record], list[Any]]
HOWS = ("inner", "left")
NOT_SLOWLY = Slowly(0.0)


@dataclass(frozen=True)
class Ids:
    """The records, and deletes as records too."""

    supports_deletes = True

    def __call__(self, record: Record) -> list[Record]:
        return [Record(record.id, record.kind)]


def join_of(
    left: Records, right: Records, how: Any, sinks: Sequence[Any], slowly: Any = NOT_SLOWLY
) -> Graph:
    def timed(name: str, records: Records) -> Stream:
        return (
            sage.flow.read(name, ListSource(records))
            .map(f"{name}-slowly", slowly)
            .event_time(f"{name}-time", out_of_order_s=OUT_OF_ORDER_S)
        )

    out, late, failed = sinks
    joined = timed("left", left).temporal_join("join", timed("right", right), how=how)
    return sage.flow.pipeline(
        joined.write("out", out),
        joined.late("late").flat_map("late-ids", Ids()).write("late-out", late),
    ).dead_letters_to(failed)


def sinks_in(folder: Path) -> list[FileSink]:
    folder.mkdir(exist_ok=True)
    return [FileSink(str(folder / name)) for name in ("out", "late", "failed")]


def in_process(left: Records, right: Records, how: str, folder: Path) -> Parts:
    outcome = asyncio.run(sage.flow.run(join_of(left, right, how, sinks_in(folder))))
    return outcome.written["out"], outcome.written["late-out"], outcome.failed


def pairs(results: Sequence[Record]) -> list[tuple[str, Any]]:
    """Of each result its id, and the id of the version, None without one."""
    return sorted(((r.id, r.value["right"] and r.value["right"]["id"]) for r in results), key=repr)


@pytest.mark.parametrize("how", HOWS)
def test_a_temporal_join_in_process_is_the_asof_join_of_duckdb(how, tmp_path) -> None:
    left = left_side(900, late=0.2, seed=1, span_ms=20_000)
    right = changelog(700, late=0.2, seed=2, span_ms=20_000)

    results, late, failed = in_process(left, right, how, tmp_path)

    truth, late_ids = asof_join(left, right, how)
    assert pairs(results) == truth
    assert Counter(record.id for record in late) == Counter(late_ids)
    assert {id_[0] for id_ in late_ids} == {"l", "r"}
    assert failed == []
    unversioned = sum(version is None for _, version in truth)
    assert unversioned > 10 if how == "left" else unversioned == 0
    assert len({version for _, version in truth}) > 200


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_the_results_do_not_depend_on_how_far_one_input_is_ahead(data: st.DataObject) -> None:
    how = data.draw(st.sampled_from(HOWS))
    rand = random.Random(data.draw(st.integers(0, 10**6)))
    left = left_side(150, late=0.2, seed=rand.randrange(10**6), span_ms=8_000)
    right = changelog(150, late=0.2, seed=rand.randrange(10**6), span_ms=8_000)
    bias = rand.random()

    results, late = interleaved(
        TemporalJoin("join", "left", "right", how),
        {"left": list(left), "right": list(right)},
        lambda: "left" if rand.random() < bias else "right",
    )

    truth, late_ids = asof_join(left, right, how)
    assert pairs(results) == truth
    assert late == late_ids


def interleaved(
    node: TemporalJoin, inputs: dict[Side, list[Record]], choose: Any
) -> tuple[list[Record], set[str]]:
    """What a join makes of two inputs whose records arrive as ``choose`` says.

    No result is behind the watermark of the output, and in the end no state is left.
    """
    state, late, results, output_ms = TemporalJoinState(node), set[str](), list[Record](), -END_MS
    marks = {name: Watermarks(round(OUT_OF_ORDER_S * 1000)) for name in inputs}
    places = dict.fromkeys(inputs, 0)
    while any(places[name] <= len(records) for name, records in inputs.items()):
        name: Side = choose()
        place, records = places[name], inputs[name]
        places[name] += 1
        watermark_ms: int | None = END_MS if place == len(records) else None
        if place < len(records):
            record = records[place]
            late |= {record.id} if state.add(name, record) is None else set()
            watermark_ms = marks[name].add(record.origin, record.timestamp_ms)
        made, next_ms = state.advance(name, watermark_ms) if watermark_ms else ([], output_ms)
        assert all(result.timestamp_ms > output_ms for result in made)
        results += made
        output_ms = next_ms
    return results, late


def flawed(name: str, ms: int = 1_000_000, key: bytes | None = b"anna") -> Record:
    """A record that one of the steps refuses."""
    return Record(f"flawed/{name}", {"id": name}, ms, key, origin="l/0/99999")


FLAWED = (
    flawed("no time", 0),
    flawed("year 9999", 253_402_300_799_000),
    flawed("no key", key=None),
    flawed("a huge key", key=b"x" * 5_000),
)


@pytest.mark.flink
@pytest.mark.timeout(600)
def test_a_job_that_restarts_has_the_results_late_records_and_dead_letters_of_one_in_process(
    tmp_path, minicluster
) -> None:
    left = (*left_side(700, late=0.2, seed=9, span_ms=14_000), *FLAWED)
    right = (*changelog(700, late=0.2, seed=10, span_ms=14_000), *FLAWED)
    results, late_here, failed_here = in_process(left, right, "left", tmp_path / "here")
    checkpoints = tmp_path / "checkpoints"
    out = FailOnce(str(tmp_path / "out"), rows_max=20, checkpoints=str(checkpoints))
    late, failed = FileSink(str(tmp_path / "late")), FileSink(str(tmp_path / "failed"))
    graph = join_of(left, right, "left", (out, late, failed), out.slowly(0.05))
    options = FlinkOptions(
        target="local",
        checkpoint_interval_s=0.3,
        bundle_items=5,  # so that checkpoints are taken among the records
        checkpoints=checkpoints.as_uri(),
    )

    sage.flow.submit(graph, name="temporal-restart", options=options)
    wait_until(lambda: len(newest(out)) >= len(results), 240, "all results")
    wait_until(lambda: ids(late.read_records()) >= ids(late_here), 60, "all late records")
    wait_until(lambda: failed.count() >= len(failed_here), 60, "all dead letters")
    time.sleep(1)

    assert Path(f"{out.path}.writers").read_text() == "opened\n" * 2  # one restart
    assert sorted(map(comparable, newest(out))) == sorted(map(comparable, results))
    assert ids(late.read_records()) == ids(late_here)
    assert len(failed_here) == 2 * len(FLAWED)
    assert {(one.id, one.step, one.reason) for one in map(from_message, failed.read_records())} == {
        (one.id, one.step, one.reason) for one in failed_here
    }


@pytest.mark.flink
@pytest.mark.timeout(120)
def test_a_temporal_join_has_the_same_results_at_another_parallelism(tmp_path, minicluster) -> None:
    # Behind several subtasks the order of arrival is not that of one list, so without what is late
    # and without two versions of one key and time.
    left = left_side(1_000, late=0.0, seed=3, span_ms=20_000)
    versions = changelog(1_000, late=0.0, seed=4, span_ms=20_000)
    right = tuple({(one.key, one.timestamp_ms): one for one in versions}.values())
    here = in_process(left, right, "inner", tmp_path / "here")

    sinks = sinks_in(tmp_path / "there")
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5, parallelism=2)
    sage.flow.submit(join_of(left, right, "inner", sinks), name="temporal", options=options)
    wait_until(lambda: sinks[0].count() >= len(here[0]), 60, "all results")
    time.sleep(1)

    assert sorted(map(comparable, sinks[0].read_records())) == sorted(map(comparable, here[0]))
    assert [sink.count() for sink in sinks[1:]] == [0, 0]
    assert len(here[0]) > 600


def comparable(record: Record) -> tuple[Any, ...]:
    """All fields of the record, which both targets make alike."""
    fields = (record.id, record.timestamp_ms, record.key, record.origin, record.kind)
    return *fields, repr(sorted(record.headers.items())), repr(record.value)


def ids(records: Sequence[Record]) -> set[str]:
    return {record.id for record in records}


def newest(sink: FileSink) -> list[Record]:
    """The last record of each id: a restart repeats those since the last checkpoint."""
    return list({record.id: record for record in sink.read_records()}.values())
