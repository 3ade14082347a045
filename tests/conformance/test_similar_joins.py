"""Similarity joins on both targets, compared with numpy over all pairs of an interval."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from join_truth import in_order, result_of
from minicluster import QUIET, FileSink
from similar_truth import DIM, sides, similarity_join
from waiting import wait_until
from window_truth import OUT_OF_ORDER_S

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions, Graph, Similar, Stream
from sage_flink.flow.lists import ListSource

pytestmark = QUIET

THRESHOLD = 0.9
WITHIN_S = (0.8, 1.2)
FLAWED = (
    {"vector": None},
    {},
    {"vector": "text"},
    {"vector": b""},
    {"vector": b"123"},
    {"vector": [1.0] * (DIM - 1)},
    {"vector": [0.0] * DIM},
    {"vector": [float("nan")] * DIM},
    {"vector": [1e300] * DIM},
    {"vector": [True] * DIM},
    {"vector": []},
    {"vector": [[1.0]] * DIM},
)


def join_of(left: Any, right: Any, how: Any, sinks: dict[str, FileSink]) -> Graph:
    def keyed(name: str, records: tuple[Record, ...]) -> Stream:
        return (
            sage.flow.read(name, ListSource(records))
            .event_time(f"{name}-time", out_of_order_s=OUT_OF_ORDER_S)
            .key_by(f"{name}-key", "deep.u")
        )

    similar = Similar(THRESHOLD, DIM)
    joined = keyed("left", left).join(
        "join", keyed("right", right), within_s=WITHIN_S, how=how, similar=similar
    )
    late = joined.late("late").write("late-out", sinks["late"])
    return sage.flow.pipeline(joined.write("out", sinks["out"]), late).dead_letters_to(
        sinks["failed"]
    )


def sinks_in(folder: Path) -> dict[str, FileSink]:
    folder.mkdir()
    return {name: FileSink(str(folder / name)) for name in ("out", "late", "failed")}


def flawed(name: str) -> tuple[Record, ...]:
    return tuple(
        Record(f"{name}/{n}", {"deep": {"u": "anna"}, **value}, 1_000_000, origin=f"{name}/0/{n}")
        for n, value in enumerate(FLAWED)
    )


@pytest.mark.parametrize("how", ["inner", "full"])
def test_a_similarity_join_in_process_has_every_pair_that_numpy_finds(how, tmp_path) -> None:
    left, right = sides(500, seed=1)

    outcome = asyncio.run(sage.flow.run(join_of(left, right, how, sinks_in(tmp_path / "here"))))

    truth, late = similarity_join(left, right, 800, 1_200, how, THRESHOLD)
    pairs = [one for one in truth if None not in one]
    without, _ = similarity_join(left, right, 800, 1_200, "inner", -1.1)
    assert in_order([result_of(r) for r in outcome.written["out"]]) == in_order(truth)
    assert {record.id for record in outcome.written["late-out"]} == late
    assert 500 < len(pairs) < len(without) / 4
    assert how == "inner" or len(truth) > len(pairs) + 50


@pytest.mark.flink
@pytest.mark.timeout(200)
def test_a_similarity_join_on_flink_is_the_one_in_process(tmp_path, minicluster) -> None:
    left, right = sides(500, seed=3)
    left, right = (*flawed("l"), *left), (*flawed("r"), *right)
    here = asyncio.run(sage.flow.run(join_of(left, right, "full", sinks_in(tmp_path / "here"))))
    results, late = here.written["out"], here.written["late-out"]

    sinks = sinks_in(tmp_path / "there")
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
    sage.flow.submit(join_of(left, right, "full", sinks), name="similar", options=options)
    counts = {"out": len(results), "late": len(late), "failed": len(here.failed)}
    for name, count in counts.items():
        wait_until(lambda n=name, c=count: sinks[n].count() >= c, 60, name)

    there = sinks["out"].read_records()
    assert sorted(map(comparable, there)) == sorted(map(comparable, results))
    letters = [from_message(record) for record in sinks["failed"].read_records()]
    assert Counter((one.id, one.reason) for one in letters) == Counter(
        (one.id, one.reason) for one in here.failed
    )
    assert len(here.failed) == 2 * len(FLAWED)
    assert {one.reason[:29] for one in here.failed} == {"its field 'vector' must be a "}


def comparable(record: Record) -> tuple[Any, ...]:
    return record.id, record.timestamp_ms, record.key, record.origin, repr(record.value)
