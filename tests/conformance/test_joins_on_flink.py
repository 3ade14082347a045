"""Joins on Flink, compared with those in process, also at another parallelism and a restart."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from join_pipelines import HOWS, Parts, Records, hot, in_process, join_of, sinks_in
from join_truth import in_order, interval_join, result_of, side
from minicluster import QUIET, FailOnce, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions, Graph
from sage_flink.flow.lists import ListSource

pytestmark = QUIET


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
    sides = odd_sides()

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


def odd_sides() -> dict[str, Records]:
    """Two inputs whose ids are long, empty or contain a separator, and a record without a key."""
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
    return sides


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
