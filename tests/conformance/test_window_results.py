"""Early results, count and global windows on both targets, compared with DuckDB and each other.

``WindowStepTest.java`` has them over a snapshot.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, FileSink
from waiting import wait_until
from window_truth import OUT_OF_ORDER_S, counted, differences, running, shuffled, sliding

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import (
    Count,
    CountDistinct,
    CountTumbling,
    Early,
    First,
    FlinkOptions,
    Global,
    Graph,
    Last,
    Max,
    Mean,
    Min,
    Quantile,
    Session,
    Sliding,
    Stddev,
    Sum,
    Tumbling,
)
from sage_flink.flow.lists import ListSource

pytestmark = QUIET

AGGREGATES = {
    "n": Count(),
    "with_v": Count("v"),
    "total": Sum("v"),
    "low": Min("v"),
    "high": Max("v"),
    "words": CountDistinct("w"),
}
#: Without early results: those that DuckDB does not know for a part of a window, too.
ALL_AGGREGATES = {
    **AGGREGATES,
    "mean": Mean("v"),
    "spread": Stddev("v"),
    "quarter": Quantile("v", 0.25),
    "first": First("w"),
    "last": Last("w"),
}
BY = ("key", "start_ms", "n")
COLUMNS = ["key", "start_ms", "end_ms", *AGGREGATES]
STEPS = {
    "by-time": (Tumbling(2), 0.0, Early(every_s=0.3)),
    "by-count": (Tumbling(2), 0.0, Early(every_records=7)),
    "sliding": (Sliding(3, 0.7), 2.0, Early(every_records=7)),
    "sessions-by-time": (Session(0.2), 0.0, Early(every_s=0.5)),
    "sessions-by-count": (Session(0.2), 0.0, Early(every_records=7)),
    "counted": (CountTumbling(10), 0.0, None),
    "counted-by-time": (CountTumbling(40), 0.0, Early(every_s=0.5)),
    "global": (Global(), 0.0, Early(every_records=7)),
}


def all_windows(records: Any, sink: Any, steps: Any = STEPS) -> Graph:
    read = sage.flow.read("in", ListSource(records))
    keyed = read.key_by("without-time", "deep.u")
    timed = read.event_time("time", out_of_order_s=OUT_OF_ORDER_S).key_by("by-user", "deep.u")
    windows = []
    for name, (kind, lateness_s, given) in steps.items():
        stream, aggregates = (keyed, ALL_AGGREGATES) if name == "counted" else (timed, AGGREGATES)
        late: Any = "dead_letter" if isinstance(kind, CountTumbling | Global) else "drop"
        windows.append(
            stream.window(name, kind, aggregates, lateness_s=lateness_s, late=late, early=given)
        )
    all_of_them = sage.flow.union("all", *windows) if len(windows) > 1 else windows[0]
    return all_of_them.write("out", sink).dead_letters_to(FileSink(f"{sink.path}.failed"))


def in_process(records: Any, folder: Path, steps: Any = STEPS) -> dict[str, list[Record]]:
    graph = all_windows(records, FileSink(str(folder / "here")), steps=steps)
    written = asyncio.run(sage.flow.run(graph)).written["out"]
    return {step: of_step(step, written) for step in steps}


def of_step(step: str, results: list[Record]) -> list[Record]:
    return [record for record in results if record.id.startswith(f"{step}/")]


def early(results: list[Record]) -> list[Record]:
    return [record for record in results if record.value["early"]]


def last_of(results: list[Record]) -> dict[str, Record]:
    return {record.id: record for record in results}


@pytest.mark.parametrize("seed", range(2))
def test_early_results_are_what_duckdb_finds_in_the_first_records_of_a_window(
    seed, tmp_path
) -> None:
    records = shuffled(2_000, late=0.2, seed=seed, span_ms=40_000)
    truth, _ = sliding(records, 2_000, 2_000)
    prefixes = running(records, 2_000)

    found = in_process(records, tmp_path, {step: STEPS[step] for step in ("by-time", "by-count")})

    sevenths = prefixes[prefixes["n"] % 7 == 0]
    assert differences(sevenths, early(found["by-count"]), BY) == []
    by_time = early(found["by-time"])
    assert len(by_time) > len(truth)
    rows = prefixes.set_index([*BY]).index
    there = prefixes[rows.isin([tuple(r.value[name] for name in BY) for r in by_time])]
    assert differences(there, by_time, BY) == []
    for step in ("by-time", "by-count"):
        last = [record for record in found[step] if not record.value["early"]]
        assert differences(truth[COLUMNS], last) == []
        assert last_of(found[step]) == last_of(last)
        assert len(last) == len(truth)


def test_count_and_global_windows_are_those_of_duckdb(tmp_path) -> None:
    records = shuffled(2_000, late=0.2, seed=5, span_ms=40_000)
    steps = {step: STEPS[step] for step in ("counted", "counted-by-time", "global")}

    found = in_process(records, tmp_path, steps)

    check_counted(records, found["counted"], 10)
    assert early(found["counted-by-time"])
    check_counted(records, [*last_of(found["counted-by-time"]).values()], 40)
    check_global(records, found["global"])


@pytest.mark.flink
@pytest.mark.timeout(150)
def test_results_on_flink_are_those_in_process(tmp_path, minicluster) -> None:
    records = shuffled(800, late=0.2, seed=9, span_ms=16_000)
    # In one job, because a job for each takes seconds.
    steps = {step: STEPS[step] for step in ("sliding", "sessions-by-time", "counted", "global")}
    here = in_process(records, tmp_path, steps)
    sink = FileSink(str(tmp_path / "there"))

    options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
    sage.flow.submit(all_windows(records, sink, steps=steps), name="results", options=options)
    wait_until(lambda: sink.count() >= sum(map(len, here.values())), 100, "all results")

    there = sink.read_records()
    for step, results in here.items():
        assert step == "counted" or early(results), step
        found = of_step(step, there)
        assert sorted(map(comparable, found)) == sorted(map(comparable, results)), step


def check_counted(records: Any, results: list[Record], size: int) -> None:
    truth = counted(records, size)
    names = [name for name in truth.columns if name in results[0].value]
    assert differences(truth[names], results, ("key", "index")) == []


def check_global(records: Any, results: list[Record]) -> None:
    prefixes = running(records, 0)
    sevenths = prefixes[prefixes["n"] % 7 == 0].drop(columns="start_ms")
    assert differences(sevenths, early(results), ("key", "n")) == []
    last = prefixes[prefixes["n"] == prefixes.groupby("key")["n"].transform("max")]
    final = [record for record in results if not record.value["early"]]
    assert differences(last.drop(columns="start_ms"), final, ("key",)) == []
    assert {record.id for record in results} == {f"global/{key}" for key in set(prefixes["key"])}


def comparable(record: Record) -> tuple[Any, ...]:
    """The record, with its numbers rounded to nine digits."""
    value = {
        name: f"{item:.9g}" if isinstance(item, float) else repr(item)
        for name, item in record.value.items()
    }
    return record.id, record.timestamp_ms, record.key, record.origin, sorted(value.items())
