"""The nearest records of each window to a query, on both targets, compared with numpy."""

import asyncio
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from join_truth import side
from minicluster import QUIET, FileSink
from similar_truth import DIM, unit_rows, with_vectors
from waiting import wait_until
from window_truth import OUT_OF_ORDER_S

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import Count, FlinkOptions, Graph, Nearest, Session, Sliding
from sage_flink.flow.lists import ListSource

pytestmark = QUIET

RECORDS = with_vectors(side("t", 1_500, late=0.0, seed=4, span_ms=30_000), seed=5)
QUERIES = tuple(tuple(unit_rows(RECORDS[n : n + 1])[0] * 3) for n in (0, 700))
NEAREST = {
    "near": Nearest("vector", QUERIES[0], k=3, value="id"),
    "n": Count(),
    "other": Nearest("vector", QUERIES[1], k=200),
}
#: Beside records that have no vector, which count and are not near.
WITHOUT = tuple(r.replace(value={**r.value, "vector": None}) for r in RECORDS[::50])
FLAWED = tuple(
    Record(f"flawed/{n}", {"deep": {"u": "anna"}, "vector": value}, 1_000_000, origin=f"t/0/9{n}")
    for n, value in enumerate(("text", [1.0], [0.0] * DIM, b"", {"a": 1}))
)


def sinks_in(folder: Path) -> dict[str, FileSink]:
    folder.mkdir()
    return {name: FileSink(str(folder / name)) for name in ("sliding", "sessions", "failed")}


def graph(sinks: dict[str, FileSink]) -> Graph:
    keyed = (
        sage.flow.read("in", ListSource((*FLAWED, *WITHOUT, *RECORDS)))
        .event_time("time", out_of_order_s=OUT_OF_ORDER_S + 30)
        .key_by("key", "deep.u")
    )
    sliding = keyed.window("sliding-windows", Sliding(4, 2), NEAREST)
    sessions = keyed.window("session-windows", Session(0.1), NEAREST)
    return sage.flow.pipeline(
        sliding.write("sliding", sinks["sliding"]), sessions.write("sessions", sinks["sessions"])
    ).dead_letters_to(sinks["failed"])


def truth() -> dict[tuple[str, int], list[tuple[str, float]]]:
    """By key and start: the ids and similarities of the three nearest to the first query."""
    cosines = unit_rows(RECORDS) @ (np.array(QUERIES[0]) / np.linalg.norm(QUERIES[0]))
    windows = defaultdict(list)
    for record, cosine in zip(RECORDS, cosines, strict=True):
        last = record.timestamp_ms - record.timestamp_ms % 2_000
        for start in (last, last - 2_000):
            windows[record.value["deep"]["u"], start].append((-cosine, record.value["id"]))
    return {at: [(id_, -c) for c, id_ in sorted(found)[:3]] for at, found in windows.items()}


def test_the_nearest_records_in_process_are_those_of_numpy(tmp_path) -> None:
    outcome = asyncio.run(sage.flow.run(graph(sinks_in(tmp_path / "here"))))

    expected = truth()
    results = {(r.value["key"], r.value["start_ms"]): r.value for r in outcome.written["sliding"]}
    assert results.keys() == expected.keys()
    for at, value in results.items():
        assert [near["value"] for near in value["near"]] == [id_ for id_, _ in expected[at]]
        for near, (_, cosine) in zip(value["near"], expected[at], strict=True):
            assert near["similarity"] == pytest.approx(cosine, abs=1e-6)
    whole = max(results.values(), key=lambda value: value["n"])
    assert {"id", "vector", "deep"} <= whole["other"][0]["value"].keys()
    assert len(whole["other"]) < whole["n"]
    assert Counter(failed.reason[:29] for failed in outcome.failed) == {
        "its field 'vector' must be a ": 2 * len(FLAWED)
    }


@pytest.mark.flink
@pytest.mark.timeout(200)
def test_the_nearest_records_on_flink_are_those_in_process(tmp_path, minicluster) -> None:
    here = asyncio.run(sage.flow.run(graph(sinks_in(tmp_path / "here"))))
    sinks = sinks_in(tmp_path / "there")

    options = FlinkOptions(target="local", checkpoint_interval_s=0.5, parallelism=2)
    sage.flow.submit(graph(sinks), name="nearest", options=options)
    for name in ("sliding", "sessions"):
        count = len(here.written[name])
        wait_until(lambda n=name, c=count: sinks[n].count() >= c, 60, name)
    wait_until(lambda: sinks["failed"].count() >= len(here.failed), 60, "failed")

    for name in ("sliding", "sessions"):
        there = sinks[name].read_records()
        assert sorted(map(comparable, there)) == sorted(map(comparable, here.written[name]))
    letters = [from_message(record) for record in sinks["failed"].read_records()]
    assert Counter((one.id, one.step, one.reason) for one in letters) == Counter(
        (one.id, one.step, one.reason) for one in here.failed
    )


def comparable(record: Record) -> tuple[Any, ...]:
    return record.id, record.timestamp_ms, record.key, repr(record.value)
