"""Windows on both targets, compared with DuckDB and with each other."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from minicluster import (
    QUIET,
    FailOnce,
    FileSink,
    Slowly,
)
from waiting import wait_until
from window_truth import OUT_OF_ORDER_S, differences, sessions, shuffled, sliding

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import (
    Collect,
    Count,
    CountDistinct,
    First,
    FlinkOptions,
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
    Top,
    Tumbling,
)
from sage_flink.flow.lists import ListSource

pytestmark = [*QUIET, pytest.mark.slow]

AGGREGATES = {
    "n": Count(),
    "with_v": Count("v"),
    "total": Sum("v"),
    "mean": Mean("v"),
    "low": Min("v"),
    "high": Max("v"),
    "spread": Stddev("v"),
    "quarter": Quantile("v", 0.25),
    "words": CountDistinct("w"),
    "first": First("w"),
    "last": Last("w"),
    "top": Top("w", 2),
    "some": Collect("w", items_max=3),
}
WINDOWS = [
    pytest.param(Tumbling(2), 0.0, id="tumbling"),
    pytest.param(Tumbling(2), 5.0, id="tumbling with lateness"),
    pytest.param(Sliding(3, 0.7), 0.0, id="sliding"),
    pytest.param(Sliding(3, 1), 2.0, id="sliding with lateness"),
]

NOT_SLOWLY = Slowly(0.0)


def flawed(name: str, ms: int = 1_000_000, **value: Any) -> Record:
    """A record that one of the steps refuses."""
    return Record(f"flawed/{name}", {"deep": {"u": "anna"}, **value}, ms, origin="t/0/99999")


FLAWED = (
    flawed("no time", 0),
    flawed("year 9999", 253_402_300_799_000),
    flawed("before the year 1", -70_000_000_000_000),
    flawed("no key", deep={}),
    flawed("a list as key", deep={"u": []}),
    flawed("a number as key", deep={"u": 1.5}),
    flawed("a huge key", deep={"u": "x" * 5_000}),
    flawed("text to add", v="3"),
    flawed("a boolean to add", v=True),
    flawed("not a number", v=float("nan")),
    flawed("infinite", v=float("inf")),
)


def windows_of(records, windows, lateness_s: float, out, late, failed, slowly=NOT_SLOWLY) -> Graph:
    keyed = (
        sage.flow.read("in", ListSource(records))
        .map("slowly", slowly)
        .event_time("time", out_of_order_s=OUT_OF_ORDER_S)
        .key_by("by-user", "deep.u")
    )
    results = keyed.window("windows", windows, AGGREGATES, lateness_s=lateness_s)
    return sage.flow.pipeline(
        results.write("out", out), results.late("late").write("late-out", late)
    ).dead_letters_to(failed)


def sinks_in(folder: Path) -> list[FileSink]:
    folder.mkdir(exist_ok=True)
    return [FileSink(str(folder / name)) for name in ("out", "late", "failed")]


def in_process(records, windows, lateness_s: float, folder: Path) -> tuple[list, list, list]:
    out, late, failed = sinks_in(folder)
    outcome = asyncio.run(
        sage.flow.run(windows_of(records, windows, lateness_s, out, late, failed))
    )
    return outcome.written["out"], outcome.written["late-out"], outcome.failed


def on_flink(
    records, windows, lateness_s: float, folder: Path, counts: tuple[int, ...]
) -> tuple[list, list, list]:
    """The records in the sinks when they have as many as ``counts`` says, and a second later."""
    sinks = sinks_in(folder)
    graph = windows_of(records, windows, lateness_s, *sinks)
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
    sage.flow.submit(graph, name="windows", options=options)
    wait_until(lambda: all(s.count() >= c for s, c in zip(sinks, counts, strict=True)), 60, "all")
    time.sleep(1)
    out, late, failed = (sink.read_records() for sink in sinks)
    return out, late, [from_message(record) for record in failed]


def newest(results: list[Record]) -> list[Record]:
    """The last result of each window: late records update it under the same id."""
    return list({record.id: record for record in results}.values())


@pytest.mark.parametrize(("windows", "lateness_s"), WINDOWS)
@pytest.mark.parametrize("seed", range(3))
def test_windows_in_process_are_those_of_duckdb(windows, lateness_s, seed, tmp_path) -> None:
    records = shuffled(2_000, late=0.2, seed=seed, span_ms=40_000)

    results, late, failed = in_process(records, windows, lateness_s, tmp_path)

    size_s, every_s = windows.size_s, getattr(windows, "every_s", windows.size_s)
    truth, late_ids = sliding(records, *(round(s * 1000) for s in (size_s, every_s, lateness_s)))
    assert differences(truth, newest(results)) == []
    assert Counter(record.id for record in late) == Counter(late_ids)
    assert late_ids
    assert failed == []
    if not lateness_s:
        assert len(results) == len(truth)


@pytest.mark.parametrize("seed", range(3))
def test_sessions_in_process_are_those_of_duckdb(seed, tmp_path) -> None:
    records = shuffled(2_000, late=0.0, seed=seed, span_ms=400_000)

    results, late, failed = in_process(records, Session(0.9), 0.0, tmp_path)

    truth = sessions(records, 900)
    assert differences(truth, results) == []
    assert len(results) == len(truth) > 100
    assert late == failed == []


@pytest.mark.flink
@pytest.mark.timeout(600)
def test_a_restart_opens_no_window_again_and_finds_the_same_records_late(
    tmp_path, minicluster
) -> None:
    records = shuffled(3_000, late=0.2, seed=4, span_ms=60_000)
    checkpoints = tmp_path / "checkpoints"
    out = FailOnce(str(tmp_path / "out"), rows_max=10, checkpoints=str(checkpoints))
    late, failed = FileSink(str(tmp_path / "late")), FileSink(str(tmp_path / "failed"))
    truth, late_ids = sliding(records, 2_000, 2_000)
    graph = windows_of(records, Tumbling(2), 0.0, out, late, failed, out.slowly(0.01))
    options = FlinkOptions(
        target="local",
        checkpoint_interval_s=0.3,
        state_backend="rocksdb",
        bundle_items=20,  # so that checkpoints are taken among the records
        checkpoints=checkpoints.as_uri(),
    )

    sage.flow.submit(graph, name="windows-restart", options=options)
    wait_until(lambda: len(newest(out.read_records())) >= len(truth), 240, "all windows")
    wait_until(lambda: {r.id for r in late.read_records()} >= late_ids, 60, "all late records")
    time.sleep(1)

    assert Path(f"{out.path}.writers").read_text() == "opened\n" * 2  # one restart
    assert differences(truth, newest(out.read_records())) == []
    assert {record.id for record in late.read_records()} == late_ids


@pytest.mark.flink
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("windows", "lateness_s"), [*WINDOWS, pytest.param(Session(0.9), 0.0)])
def test_windows_on_flink_are_those_in_process(windows, lateness_s, tmp_path, minicluster) -> None:
    records = (*shuffled(3_000, late=0.2, seed=9, span_ms=60_000), *FLAWED)
    here = in_process(records, windows, lateness_s, tmp_path / "here")

    there = on_flink(
        records, windows, lateness_s, tmp_path / "there", tuple(len(part) for part in here)
    )

    assert len(here[2]) == len(FLAWED)
    assert sorted(map(comparable, there[0])) == sorted(map(comparable, here[0]))
    assert sorted(record.id for record in there[1]) == sorted(record.id for record in here[1])
    assert {(letter.id, letter.step, letter.reason) for letter in there[2]} == {
        (failed.id, failed.step, failed.reason) for failed in here[2]
    }


def comparable(record: Record) -> tuple[Any, ...]:
    """The record, with its numbers rounded to nine digits."""
    value = {
        name: f"{item:.9g}" if isinstance(item, float) else repr(item)
        for name, item in record.value.items()
    }
    return record.id, record.timestamp_ms, record.key, record.origin, sorted(value.items())
