"""Joins on both targets, compared with DuckDB and with each other."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_truth import in_order, interval_join, result_of, side, window_join
from minicluster import QUIET, FailOnce, FileSink, Slowly
from waiting import wait_until
from window_truth import OUT_OF_ORDER_S

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions, Graph, Stream
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.stateful.join_state import JoinState, Side
from sage_flink.flow.stateful.joins import Join
from sage_flink.flow.stateful.watermarks import END_MS, Watermarks

pytestmark = QUIET

Records = tuple[Record, ...]
Parts = tuple[list[Record], list[Record], list[Any]]
HOWS = ("inner", "left", "full")
NOT_SLOWLY = Slowly(0.0)
#: In the last one a record may be far behind the watermark and not be late.
WITHIN = [(0.02, 0.05), (0.0, 0.1), (0.3, 0.0), (0.0, 0.0), (1.5, 2.0)]


def join_of(left: Records, right: Records, within_s, how, sinks, slowly: Any = NOT_SLOWLY) -> Graph:
    def keyed(name: str, records: Records) -> Stream:
        return (
            sage.flow.read(name, ListSource(records))
            .map(f"{name}-slowly", slowly)
            .event_time(f"{name}-time", out_of_order_s=OUT_OF_ORDER_S)
            .key_by(f"{name}-key", "deep.u")
        )

    out, late, failed = sinks
    joined = keyed("left", left).join("join", keyed("right", right), within_s=within_s, how=how)
    return sage.flow.pipeline(
        joined.write("out", out), joined.late("late").write("late-out", late)
    ).dead_letters_to(failed)


def sinks_in(folder: Path) -> list[FileSink]:
    folder.mkdir(exist_ok=True)
    return [FileSink(str(folder / name)) for name in ("out", "late", "failed")]


def in_process(left: Records, right: Records, within_s, how: str, folder: Path) -> Parts:
    graph = join_of(left, right, within_s, how, sinks_in(folder))
    outcome = asyncio.run(sage.flow.run(graph))
    return outcome.written["out"], outcome.written["late-out"], outcome.failed


def on_flink(
    graph: Graph, sinks: Sequence[FileSink], counts: Sequence[int], parallelism: int = 1
) -> Parts:
    """The records in the sinks when they have as many as ``counts`` says, and a second later."""
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5, parallelism=parallelism)
    sage.flow.submit(graph, name="joins", options=options)
    wait_until(lambda: all(s.count() >= c for s, c in zip(sinks, counts, strict=True)), 60, "all")
    time.sleep(1)
    out, late, failed = (sink.read_records() for sink in sinks)
    return out, late, [from_message(record) for record in failed]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("within_s", WITHIN)
def test_a_join_in_process_is_that_of_duckdb(within_s, how, tmp_path) -> None:
    left = side("l", 700, late=0.2, seed=1, span_ms=20_000)
    right = side("r", 900, late=0.2, seed=2, span_ms=20_000)

    results, late, failed = in_process(left, right, within_s, how, tmp_path)

    truth, late_ids = interval_join(left, right, *(round(s * 1000) for s in within_s), how)
    assert in_order(list(map(result_of, results))) == in_order(truth)
    assert Counter(record.id for record in late) == Counter(late_ids)
    assert {id_[0] for id_ in late_ids} == {"l", "r"}
    assert len({record.id for record in results}) == len(results)
    assert failed == []
    unpaired = sum(None in one for one in truth)
    if how == "inner":
        assert unpaired == 0
    elif sum(within_s) < 1:
        assert unpaired > 10


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_the_results_do_not_depend_on_how_far_one_input_is_ahead(data: st.DataObject) -> None:
    before_ms, after_ms = (data.draw(st.integers(0, 2_500)) for _ in range(2))
    how = data.draw(st.sampled_from(HOWS))
    rand = random.Random(data.draw(st.integers(0, 10**6)))
    left = side("l", 150, late=0.2, seed=rand.randrange(10**6), span_ms=8_000)
    right = side("r", 150, late=0.2, seed=rand.randrange(10**6), span_ms=8_000)
    bias = rand.random()

    results, late = interleaved(
        Join("join", "left", "right", (before_ms / 1000, after_ms / 1000), how),
        {"left": list(left), "right": list(right)},
        lambda: "left" if rand.random() < bias else "right",
    )

    truth, late_ids = interval_join(left, right, before_ms, after_ms, how)
    assert in_order(list(map(result_of, results))) == in_order(truth)
    assert late == late_ids


def interleaved(
    node: Join, inputs: dict[Side, list[Record]], choose: Any
) -> tuple[list[Record], set[str]]:
    """What a join makes of two inputs whose records arrive as ``choose`` says.

    No result is behind the watermark of the output.
    """
    state, late, results, output_ms = JoinState(node), set[str](), list[Record](), -END_MS
    marks = {name: Watermarks(round(OUT_OF_ORDER_S * 1000)) for name in inputs}
    places = dict.fromkeys(inputs, 0)
    while any(places[name] <= len(records) for name, records in inputs.items()):
        name: Side = choose()
        place, records = places[name], inputs[name]
        places[name] += 1
        made: list[Record] | None = []
        watermark_ms: int | None = END_MS if place == len(records) else None
        if place < len(records):
            record = records[place]
            made = state.add(name, record.replace(key=record.value["deep"]["u"].encode()))
            watermark_ms = marks[name].add(record.origin, record.timestamp_ms)
            late |= {record.id} if made is None else set()
        alone, next_ms = state.advance(name, watermark_ms) if watermark_ms else ([], output_ms)
        for result in (*(made or ()), *alone):
            assert result.timestamp_ms > output_ms
            results.append(result)
        output_ms = next_ms
    return results, late


@pytest.mark.parametrize("how", HOWS)
def test_a_key_with_its_minute_makes_a_window_join(how) -> None:
    records = {
        name: side(name, 250, late=0.0, seed=seed, span_ms=120_000)
        for name, seed in (("l", 5), ("r", 6))
    }

    def window_of(record: Record) -> str:
        return f"{record.value['deep']['u']} {record.timestamp_ms // 2_000}"

    left, right = (
        sage.flow.read(name, ListSource(made))
        .event_time(f"{name}-time", out_of_order_s=OUT_OF_ORDER_S)
        .key_by(f"{name}-window", window_of)
        for name, made in records.items()
    )
    pairs = left.join("pairs", right, within_s=(2, 2), how=how).write("out", ListSink())
    results = asyncio.run(sage.flow.run(pairs)).written["out"]

    truth = window_join(records["l"], records["r"], 2_000, how)
    assert sorted((result_of(one)[:2] for one in results), key=repr) == truth
    assert len(truth) > 100


def test_a_key_with_most_of_the_records_joins_as_any_other(tmp_path) -> None:
    left = hot(side("l", 3_000, late=0.1, seed=5, span_ms=60_000))
    right = hot(side("r", 3_000, late=0.1, seed=6, span_ms=60_000))

    results, _, _ = in_process(left, right, (0.02, 0.05), "full", tmp_path)

    truth, _ = interval_join(left, right, 20, 50, "full")
    assert in_order(list(map(result_of, results))) == in_order(truth)


def hot(records: Records) -> Records:
    """The records, all but each hundredth with one key."""
    return tuple(
        record if n % 100 == 0 else record.replace(value={**record.value, "deep": {"u": "anna"}})
        for n, record in enumerate(records)
    )


def flawed(name: str, ms: int = 1_000_000, **value: Any) -> Record:
    """A record that one of the steps refuses."""
    id_ = f"flawed/{name}"
    return Record(id_, {"id": id_, "deep": {"u": "anna"}, **value}, ms, origin="l/0/99999")


FLAWED = (
    flawed("no time", 0),
    flawed("year 9999", 253_402_300_799_000),
    flawed("no key", deep={}),
    flawed("a list as key", deep={"u": []}),
    flawed("a huge key", deep={"u": "x" * 5_000}),
)


@pytest.mark.flink
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "within_s", [(0.02, 0.05), pytest.param((1.5, 2.0), marks=pytest.mark.full)]
)
def test_a_join_on_flink_is_the_one_in_process(within_s, how, tmp_path, minicluster) -> None:
    left = (*side("l", 800, late=0.2, seed=3, span_ms=16_000), *FLAWED)
    right = (*hot(side("r", 800, late=0.2, seed=4, span_ms=16_000)), *FLAWED)
    here = in_process(left, right, within_s, how, tmp_path / "here")

    sinks = sinks_in(tmp_path / "there")
    there = on_flink(join_of(left, right, within_s, how, sinks), sinks, list(map(len, here)))

    assert len(here[2]) == 2 * len(FLAWED)
    assert sorted(map(comparable, there[0])) == sorted(map(comparable, here[0]))
    assert sorted(record.id for record in there[1]) == sorted(record.id for record in here[1])
    assert here[1]
    assert {(letter.id, letter.step, letter.reason) for letter in there[2]} == {
        (failed.id, failed.step, failed.reason) for failed in here[2]
    }


def comparable(record: Record) -> tuple[Any, ...]:
    """All fields of the record, which both targets make alike."""
    fields = (record.id, record.timestamp_ms, record.key, record.origin, record.kind)
    return *fields, repr(sorted(record.headers.items())), repr(record.value)


@pytest.mark.flink
@pytest.mark.timeout(120)
def test_records_without_a_key_ids_that_are_long_and_headers_are_the_same_on_both_targets(
    tmp_path, minicluster
) -> None:
    ids = ("a~b", "x" * 300, "", "é" * 90, "plain")
    sides = {
        name: tuple(
            Record(
                f"{name}/{id_}" if id_ else "",
                {"id": id_, "n": None},
                1_000_000 + n,
                b"key",
                {"both": name.encode(), name: b"\xff"},
            )
            for n, id_ in enumerate(ids)
        )
        for name in ("left", "right")
    }
    sides["left"] += (Record("left/no key", {"id": ""}, 1_000_000),)
    sides["right"] += (Record("right/alone", b"raw", 1_000_000, b"alone"),)

    def graph(sinks: Sequence[FileSink]) -> Graph:
        left, right = (
            sage.flow.read(name, ListSource(records)).event_time(f"{name}-time", out_of_order_s=9)
            for name, records in sides.items()
        )
        joined = left.join("join", right, within_s=(0.001, 0.002), how="full")
        return sage.flow.pipeline(
            joined.write("out", sinks[0]), joined.late("late").write("late-out", sinks[1])
        ).dead_letters_to(sinks[2])

    outcome = asyncio.run(sage.flow.run(graph(sinks_in(tmp_path / "here"))))
    sinks = sinks_in(tmp_path / "there")
    results = outcome.written["out"]
    there = on_flink(graph(sinks), sinks, [len(results), 0, 1])

    assert len(results) == 1 + sum(n - 1 <= m <= n + 2 for n in range(5) for m in range(5))
    assert sorted(map(comparable, there[0])) == sorted(map(comparable, results))
    assert len({record.id for record in results}) == len(results)
    assert all(len(record.id.encode()) <= 200 for record in results)
    assert [(one.id, one.step, one.reason) for one in there[2]] == [
        (one.id, one.step, one.reason) for one in outcome.failed
    ]
    assert "has no key" in outcome.failed[0].reason


@pytest.mark.flink
@pytest.mark.timeout(120)
def test_a_join_has_the_same_results_at_another_parallelism(tmp_path, minicluster) -> None:
    left = side("l", 2_000, late=0.0, seed=7, span_ms=40_000)
    right = side("r", 2_000, late=0.0, seed=8, span_ms=40_000)
    here = in_process(left, right, (0.05, 0.1), "full", tmp_path / "here")

    sinks = sinks_in(tmp_path / "there")
    graph = join_of(left, right, (0.05, 0.1), "full", sinks)
    there = on_flink(graph, sinks, list(map(len, here)), parallelism=2)

    assert sorted(map(comparable, there[0])) == sorted(map(comparable, here[0]))
    assert there[1] == here[1] == []


@pytest.mark.flink
@pytest.mark.timeout(600)
def test_a_restart_loses_no_pair_and_finds_the_same_records_late(tmp_path, minicluster) -> None:
    left = side("l", 1_000, late=0.2, seed=9, span_ms=20_000)
    right = side("r", 1_000, late=0.2, seed=10, span_ms=20_000)
    truth, late_ids = interval_join(left, right, 50, 100, "full")
    checkpoints = tmp_path / "checkpoints"
    out = FailOnce(str(tmp_path / "out"), rows_max=20, checkpoints=str(checkpoints))
    late, failed = FileSink(str(tmp_path / "late")), FileSink(str(tmp_path / "failed"))
    graph = join_of(left, right, (0.05, 0.1), "full", (out, late, failed), out.slowly(0.05))
    options = FlinkOptions(
        target="local",
        checkpoint_interval_s=0.3,
        bundle_items=5,  # so that checkpoints are taken among the records
        checkpoints=checkpoints.as_uri(),
    )

    sage.flow.submit(graph, name="joins-restart", options=options)
    wait_until(lambda: len(newest(out.read_records())) >= len(truth), 240, "all results")
    wait_until(lambda: {r.id for r in late.read_records()} >= late_ids, 60, "all late records")
    time.sleep(1)

    assert Path(f"{out.path}.writers").read_text() == "opened\n" * 2  # one restart
    assert in_order(list(map(result_of, newest(out.read_records())))) == in_order(truth)
    assert {record.id for record in late.read_records()} == late_ids
    assert failed.read_records() == []


def newest(results: list[Record]) -> list[Record]:
    """The last result of each id: a restart repeats those since the last checkpoint."""
    return list({record.id: record for record in results}.values())
