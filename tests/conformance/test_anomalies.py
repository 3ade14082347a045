"""Anomalies and alerts on Flink, compared with those in process; a restart opens none twice."""

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, FailOnce, FileSink, Slowly
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions, Graph, Stream
from sage_flink.flow.lists import ListSource
from sage_flink.operators import Alerts, PageHinkley, RobustZScore

pytestmark = [*QUIET, pytest.mark.flink, pytest.mark.timeout(200)]

KEYS = (b"pump", b"fan", b"\xff\x00")


def readings(count: int) -> tuple[Record, ...]:
    """Waves of each key with jumps, and now and then a value that is no number or is out of order.

    They are numbered by minutes, so that a jump lasts some of them.
    """
    values: list[tuple[int, Any]] = []
    for n in range(count):
        jump = 50.0 if n // len(KEYS) % 40 in (30, 31, 32) else 0.0
        bad = {7: "hot", 8: None, 9: math.nan}.get(n % 97)
        value = bad if n % 97 in (7, 8, 9) else 20 + math.sin(n) + jump
        values.append((n - 60 if n % 89 == 88 else n, value))
    return tuple(
        Record(f"t/0/{n}", {"celsius": value}, (minute + 100) * 60_000, KEYS[n % len(KEYS)])
        for n, (minute, value) in enumerate(values)
    )


def watched(readings: Stream) -> Stream:
    limits = Alerts("score", 5, 3, for_points=2, absolute=True, keep=("celsius", "change"))
    return (
        readings.fold("score", RobustZScore("celsius", history=30), initial=None)
        .fold("change", PageHinkley("celsius", threshold=60, points_min=5), initial=None)
        .fold("alert", limits, initial=None)
    )


def graph(records: tuple[Record, ...], out: Any, failed: FileSink, pause_s: float = 0.0) -> Graph:
    read = sage.flow.read("in", ListSource(records)).map("slowly", Slowly(pause_s))
    return watched(read).write("out", out).dead_letters_to(failed)


def sinks(folder: Path, name: str) -> tuple[FileSink, FileSink]:
    return FileSink(str(folder / f"{name}.out")), FileSink(str(folder / f"{name}.failed"))


def summary(records: list[Record]) -> list[tuple[Any, ...]]:
    return sorted((r.id, r.timestamp_ms, r.key, repr(sorted(r.value.items()))) for r in records)


def test_alerts_on_flink_are_those_in_process(tmp_path: Path, minicluster: Any) -> None:
    records = readings(1_500)
    out, dead = sinks(tmp_path, "there")

    outcome = asyncio.run(sage.flow.run(graph(records, *sinks(tmp_path, "here"))))
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
    sage.flow.submit(graph(records, out, dead), name="anomalies", options=options)
    expected = outcome.written["out"]
    wait_until(lambda: out.count() >= len(expected), 90, "all alerts")
    wait_until(lambda: dead.count() >= len(outcome.failed), 60, "all dead letters")

    assert summary(out.read_records()) == summary(expected)
    states = Counter((r.value["key"], r.value["state"]) for r in expected)
    assert all(states[key, "open"] > 5 for key in ("pump", "fan", b"\xff\x00"))
    failed = [from_message(record) for record in dead.read_records()]
    assert sorted((one.id, one.reason) for one in failed) == sorted(
        (one.id, one.reason) for one in outcome.failed
    )
    assert {one.reason[:10] for one in failed} == {"field 'cel", "is out of "}


def test_a_restart_opens_and_closes_each_alert_once(tmp_path: Path, minicluster: Any) -> None:
    records, checkpoints = readings(1_500), tmp_path / "checkpoints"
    out = FailOnce(str(tmp_path / "out"), rows_max=20, checkpoints=str(checkpoints))
    _, dead = sinks(tmp_path, "there")

    outcome = asyncio.run(sage.flow.run(graph(records, *sinks(tmp_path, "here"))))
    options = FlinkOptions(
        target="local",
        checkpoint_interval_s=0.3,
        bundle_items=20,
        checkpoints=checkpoints.as_uri(),
    )
    job = graph(records, out, dead, pause_s=0.005)
    sage.flow.submit(job, name="anomalies-restart", options=options)
    expected = {record.id: record for record in outcome.written["out"]}
    wait_until(lambda: {r.id for r in out.read_records()} >= expected.keys(), 90, "all alerts")

    assert Path(f"{out.path}.writers").read_text() == "opened\n" * 2  # one restart
    # What was written after the last checkpoint is written again, and is the same.
    newest = {record.id: record for record in out.read_records()}
    assert summary(list(newest.values())) == summary(list(expected.values()))
