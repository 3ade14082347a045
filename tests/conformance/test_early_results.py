"""Early results of windows on both targets, compared with DuckDB and with each other."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, FailOnce, FileSink, Slowly
from waiting import wait_until
from window_truth import OUT_OF_ORDER_S, differences, running, shuffled, sliding

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import (
    Count,
    CountDistinct,
    Early,
    FlinkOptions,
    Graph,
    Max,
    Min,
    Session,
    Sliding,
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
BY = ("key", "start_ms", "n")
#: One job has them all: a job of its own for each takes seconds.
STEPS = {
    "by-time": (Tumbling(2), 0.0, Early(every_s=0.3)),
    "by-count": (Tumbling(2), 0.0, Early(every_records=7)),
    "late-by-time": (Tumbling(2), 5.0, Early(every_s=0.3)),
    "late-by-count": (Sliding(3, 0.7), 2.0, Early(every_records=7)),
    "sessions-by-time": (Session(0.2), 0.0, Early(every_s=0.5)),
    "sessions-by-count": (Session(0.2), 0.0, Early(every_records=7)),
}


def early_windows(records: Any, sink: Any, pause_s: float = 0.0, steps: Any = STEPS) -> Graph:
    keyed = (
        sage.flow.read("in", ListSource(records))
        .map("slowly", Slowly(pause_s))
        .event_time("time", out_of_order_s=OUT_OF_ORDER_S)
        .key_by("by-user", "deep.u")
    )
    windows = [
        keyed.window(name, kind, AGGREGATES, lateness_s=lateness_s, late="drop", early=early)
        for name, (kind, lateness_s, early) in steps.items()
    ]
    all_of_them = sage.flow.union("all", *windows) if len(windows) > 1 else windows[0]
    return all_of_them.write("out", sink).dead_letters_to(FileSink(f"{sink.path}.failed"))


def in_process(records: Any, folder: Path, steps: Any = STEPS) -> dict[str, list[Record]]:
    graph = early_windows(records, FileSink(str(folder / "here")), steps=steps)
    written = asyncio.run(sage.flow.run(graph)).written["out"]
    return {step: of_step(step, written) for step in steps}


def of_step(step: str, results: list[Record]) -> list[Record]:
    return [record for record in results if record.id.startswith(f"{step}/")]


def last_of(results: list[Record]) -> dict[str, Record]:
    return {record.id: record for record in results}


@pytest.mark.parametrize("seed", range(3))
def test_early_results_are_what_duckdb_finds_in_the_first_records_of_a_window(
    seed, tmp_path
) -> None:
    records = shuffled(2_000, late=0.2, seed=seed, span_ms=40_000)
    truth, _ = sliding(records, 2_000, 2_000)
    prefixes = running(records, 2_000)

    found = in_process(records, tmp_path, {step: STEPS[step] for step in ("by-time", "by-count")})

    sevenths = prefixes[prefixes["n"] % 7 == 0]
    by_count = [record for record in found["by-count"] if record.value["early"]]
    assert differences(sevenths, by_count, BY) == []
    by_time = [record for record in found["by-time"] if record.value["early"]]
    assert len(by_time) > len(truth)
    rows = prefixes.set_index([*BY]).index
    there = prefixes[rows.isin([tuple(r.value[name] for name in BY) for r in by_time])]
    assert differences(there, by_time, BY) == []
    for step in ("by-time", "by-count"):
        last = [record for record in found[step] if not record.value["early"]]
        assert differences(truth[[*BY, "with_v", "total", "low", "high", "words"]], last) == []
        assert last_of(found[step]) == last_of(last)
        assert len(last) == len(truth)


@pytest.mark.flink
@pytest.mark.timeout(120)
def test_early_results_on_flink_are_those_in_process(tmp_path, minicluster) -> None:
    records = shuffled(1_500, late=0.2, seed=9, span_ms=30_000)
    here = in_process(records, tmp_path)
    sink = FileSink(str(tmp_path / "there"))

    options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
    sage.flow.submit(early_windows(records, sink), name="early", options=options)
    wait_until(lambda: sink.count() >= sum(map(len, here.values())), 60, "all results")

    there = sink.read_records()
    for step, results in here.items():
        assert any(r.value["early"] for r in results), step
        found = of_step(step, there)
        assert sorted(map(comparable, found)) == sorted(map(comparable, results)), step


@pytest.mark.flink
@pytest.mark.timeout(120)
def test_early_results_go_on_counting_behind_a_restart(tmp_path, minicluster) -> None:
    records = shuffled(2_000, late=0.2, seed=4, span_ms=40_000)
    checkpoints = tmp_path / "checkpoints"
    sink = FailOnce(str(tmp_path / "out"), rows_max=100, checkpoints=str(checkpoints))
    truth, _ = sliding(records, 2_000, 2_000)
    prefixes = running(records, 2_000)
    sevenths = prefixes[prefixes["n"] % 7 == 0]
    options = FlinkOptions(
        target="local",
        checkpoint_interval_s=0.3,
        bundle_items=20,
        checkpoints=checkpoints.as_uri(),
    )
    steps = {"by-count": STEPS["by-count"]}

    sage.flow.submit(
        early_windows(records, sink, pause_s=0.002, steps=steps), name="again", options=options
    )

    def final() -> list[Record]:
        return [record for record in sink.read_records() if not record.value["early"]]

    wait_until(lambda: len(last_of(final())) >= len(truth), 60, "all windows")
    early = [record for record in sink.read_records() if record.value["early"]]
    assert Path(f"{sink.path}.writers").read_text() == "opened\n" * 2  # one restart
    assert differences(sevenths, early, BY) == []
    assert differences(truth[[*BY, "with_v", "total", "low", "high", "words"]], final()) == []


def comparable(record: Record) -> tuple[Any, ...]:
    """The record, with its numbers rounded to nine digits."""
    value = {
        name: f"{item:.9g}" if isinstance(item, float) else repr(item)
        for name, item in record.value.items()
    }
    return record.id, record.timestamp_ms, record.key, record.origin, sorted(value.items())
