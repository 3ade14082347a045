"""map_batches on Flink: batches, single failures, a store that is away, a restart."""

import asyncio
import time
from pathlib import Path

import pytest
from minicluster import QUIET, FailOnce, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_connectors import generator
from sage_flink.common import Record, StoreUnavailable
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions
from sage_flink.flow.lists import ListSource

pytestmark = [*QUIET, pytest.mark.flink, pytest.mark.timeout(240)]

COUNT = 400


def doubled(records):
    """Twice the number, with the size of the batch; some fail."""
    if any(record.value["n"] % 100 == 7 for record in records):
        raise ValueError("a seven")
    return [{"n": record.value["n"] * 2, "items": len(records)} for record in records]


def build(folder, source, function, **options):
    sinks = {name: FileSink(str(folder / name)) for name in ("out", "failed")}
    sinks |= options
    read = sage.flow.read("in", source)
    made = read.map_batches("batched", function, items_max=50, linger_s=0.2)
    tagged = made.map("tagged", lambda record: record.value | {"tagged": True})
    return tagged.write("out", sinks["out"]).dead_letters_to(sinks["failed"]), sinks


def records():
    return ListSource(tuple(Record(f"n/{n}", {"n": n}, n, origin=f"n/{n}") for n in range(COUNT)))


def letters(sink):
    return sorted((one.id, one.step, one.reason) for one in map(from_message, sink.read_records()))


def test_both_targets_make_the_same_records_and_dead_letters(tmp_path, minicluster):
    graph, sinks = build(tmp_path, records(), doubled)
    options = FlinkOptions(target="local", parallelism=2, checkpoint_interval_s=0.5)

    outcome = asyncio.run(sage.flow.run(graph, sinks={"out": FileSink(str(tmp_path / "here"))}))
    sage.flow.submit(graph, name="batches", options=options)
    wait_until(lambda: sinks["out"].count() >= COUNT - 4, 90, "all records")
    wait_until(lambda: sinks["failed"].count() >= 4, 30, "all dead letters")

    made, expected = sinks["out"].read_records(), outcome.written["out"]
    assert sorted((r.id, r.value["n"]) for r in made) == [
        (f"n/{n}", 2 * n) for n in sorted(range(COUNT), key=lambda n: f"n/{n}") if n % 100 != 7
    ]
    assert len(expected) == len(made)
    failed = sorted((f.record.id, f.step, f.reason) for f in outcome.failed)
    assert letters(sinks["failed"]) == failed
    assert {id_ for id_, _, _ in failed} == {f"n/{n}" for n in (7, 107, 207, 307)}
    assert max(record.value["items"] for record in made) > 10


def test_a_store_that_is_away_is_waited_for(tmp_path, minicluster):
    here = tmp_path / "here"

    def waits(records):
        if not here.exists():
            raise StoreUnavailable("not here")
        return [record.value for record in records]

    graph, sinks = build(tmp_path, records(), waits)
    options = FlinkOptions(target="local", parallelism=1, checkpoint_interval_s=0.5)
    sage.flow.submit(graph, name="away", options=options)
    time.sleep(6)
    assert sinks["out"].count() == sinks["failed"].count() == 0
    here.touch()
    wait_until(lambda: sinks["out"].count() >= COUNT, 60, "all records")

    assert len({record.id for record in sinks["out"].read_records()}) == COUNT
    assert sinks["failed"].count() == 0


def test_a_restart_loses_no_record_that_waits_for_its_batch(tmp_path, minicluster):
    checkpoints = tmp_path / "checkpoints"
    out = FailOnce(str(tmp_path / "out"), rows_max=200, checkpoints=str(checkpoints))
    source = generator(1_800, per_s=60, make=lambda n, random: {"n": n})

    graph, sinks = build(tmp_path, source, lambda batch: [r.value for r in batch], out=out)
    options = FlinkOptions(
        target="local",
        parallelism=2,
        checkpoint_interval_s=0.3,
        checkpoints=checkpoints.as_uri(),
    )
    sage.flow.submit(graph, name="restart", options=options)
    wait_until(lambda: len({r.value["n"] for r in out.read_records()}) >= 1_800, 150, "all")

    assert Path(f"{out.path}.failed-once").exists()
    assert sinks["failed"].count() == 0
