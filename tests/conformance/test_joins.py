"""Joins in process, compared with DuckDB."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_pipelines import HOWS, hot, in_process
from join_truth import in_order, interval_join, result_of, side, window_join
from minicluster import QUIET
from window_truth import OUT_OF_ORDER_S

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.stateful.join_state import JoinState, Side
from sage_flink.flow.stateful.joins import Join
from sage_flink.flow.stateful.watermarks import END_MS, Watermarks

pytestmark = [*QUIET, pytest.mark.slow]


#: In the last one a record may be far behind the watermark and not be late.
WITHIN = [(0.02, 0.05), (0.0, 0.1), (0.3, 0.0), (0.0, 0.0), (1.5, 2.0)]


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
