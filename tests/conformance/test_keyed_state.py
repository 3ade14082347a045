"""Steps with state for each key on Flink, compared with those in process."""

import asyncio
import time
from dataclasses import replace
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
from window_truth import OUT_OF_ORDER_S, shuffled

import sage_flink as sage
from sage_flink.common import FailedRecord, Record
from sage_flink.common.dead_letters import DeadLetter, from_message
from sage_flink.flow import FlinkOptions, Graph, Stream
from sage_flink.flow.lists import ListSource

pytestmark = [*QUIET, pytest.mark.flink, pytest.mark.timeout(600)]

#: What no keyed step takes, but event time does.
FLAWED = (
    Record("no key", {}, 1_000_000, None, origin="t/0/99999"),
    Record("a huge key", {}, 1_000_000, b"x" * 4_097, origin="t/0/99999"),
    Record("an empty key", {"w": "a"}, 1_000_000, b"", origin="t/0/99999"),
)


#: A slow step lets a checkpoint pass between two of its bundles.
RESTARTED = FlinkOptions(target="local", checkpoint_interval_s=0.3, bundle_items=20)


def keyed(count: int, **shape: Any) -> tuple[Record, ...]:
    """Shuffled records whose keys are bytes of any kind."""
    records = shuffled(count, **shape)
    return tuple(r.replace(key=r.value["deep"]["u"].encode("utf-16")) for r in records)


def sinks_in(folder: Path, *names: str) -> dict[str, FileSink]:
    folder.mkdir(exist_ok=True)
    return {name: FileSink(str(folder / name)) for name in (*names, "failed")}


def summary(records: list[Record]) -> list[tuple[Any, ...]]:
    return sorted((r.id, r.timestamp_ms, r.key, r.origin, repr(r.value)) for r in records)


def letters(failed: list[FailedRecord] | list[DeadLetter]) -> list[tuple[str, str, str]]:
    return sorted((letter.id, letter.step, letter.reason) for letter in failed)


def filters(records: tuple[Record, ...], sinks: dict[str, FileSink]) -> Graph:
    """Each verb that passes some of its records, on a branch of its own."""
    timed = sage.flow.read("in", ListSource(records)).event_time(
        "time", out_of_order_s=OUT_OF_ORDER_S
    )
    branches = {
        "field": timed.changes_only("field-changes", "w"),
        "value": timed.map("short", word).changes_only("changes", ttl_s=3_600),
        "long": timed.map("long", long_word).changes_only("long-changes"),
        "dropped": timed.rate_limit("drop-over", records_max=2, per_s=1.5),
        "refused": timed.rate_limit("refuse-over", records_max=7, per_s=4, over="dead_letter"),
    }
    written = [branch.write(f"{name}-out", sinks[name]) for name, branch in branches.items()]
    return sage.flow.pipeline(*written, dead_letters=sinks["failed"])


BRANCHES = ("field", "value", "long", "dropped", "refused")


def word(record: Record) -> Any:
    return record.value.get("w", "")


def long_word(record: Record) -> Any:
    return word(record) * 40


def test_what_passes_on_flink_passes_in_process(tmp_path, minicluster) -> None:
    records = (*keyed(2_000, late=0.2, seed=5, span_ms=60_000), *FLAWED)
    here = sinks_in(tmp_path / "here", *BRANCHES)
    there = sinks_in(tmp_path / "there", *BRANCHES)

    outcome = asyncio.run(sage.flow.run(filters(records, here)))
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
    job = sage.flow.submit(filters(records, there), name="filters", options=options)
    expected = {name: outcome.written[f"{name}-out"] for name in BRANCHES}
    wait_until(lambda: there["failed"].count() >= len(outcome.failed), 60, "all dead letters")
    for name in BRANCHES:
        wait_until(lambda n=name: there[n].count() >= len(expected[n]), 60, name)

    assert job
    for name, made in expected.items():
        assert summary(there[name].read_records()) == summary(made), name
        assert 20 < len(made) < len(records), name
    failed = [from_message(record) for record in there["failed"].read_records()]
    assert letters(failed) == letters(outcome.failed)
    reasons = {letter.reason[:12] for letter in failed}
    assert reasons == {"has no key: ", "its key has ", "is late: the", "is over the "}


def totals(state: dict[str, Any], record: Record) -> tuple[dict[str, Any], list[Any]]:
    """Sum and last words of a key; it changes the state before it raises."""
    number = record.value.get("v") or 0
    state["sum"] += round(number)
    state["words"] = [*state["words"], record.value["w"]][-20:]
    if record.value["w"] == "c":
        raise ValueError("no c")
    if record.value["w"] == "d":
        return {"sum": object()}, []
    return state, [state["sum"], state] if len(state["words"]) % 3 else []


def test_a_fold_on_flink_makes_what_it_makes_in_process(tmp_path, minicluster) -> None:
    records = (*keyed(2_000, late=0.0, seed=6, span_ms=60_000), *FLAWED)
    here, there = (sinks_in(tmp_path / name, "out") for name in ("here", "there"))

    def graph(sinks: dict[str, FileSink]) -> Graph:
        initial = {"sum": 0, "words": []}
        folded = sage.flow.read("in", ListSource(records)).fold("totals", totals, initial=initial)
        behind = folded.map("behind", lambda record: [record.value])  # in the same Python stage
        return behind.write("out", sinks["out"]).dead_letters_to(sinks["failed"])

    outcome = asyncio.run(sage.flow.run(graph(here)))
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
    sage.flow.submit(graph(there), name="fold", options=options)
    expected, failed = outcome.written["out"], outcome.failed
    wait_until(lambda: there["out"].count() >= len(expected), 90, "all outputs")
    wait_until(lambda: there["failed"].count() >= len(failed), 60, "all dead letters")
    time.sleep(1)

    assert len({record.key for record in expected}) > 3
    assert summary(there["out"].read_records()) == summary(expected)
    letters_there = [from_message(record) for record in there["failed"].read_records()]
    assert letters(letters_there) == letters(failed)
    reasons = {letter.reason[:24] for letter in failed}
    assert reasons == {
        "ValueError: no c (test_k",
        "the state cannot be enco",
        "has no key: put .key_by(",
        "its key has 4097 bytes, ",
    }


def count(state: int, record: Record) -> tuple[int, list[int]]:
    return state + 1, [state + 1]


class Outside:
    """Counts in a state that Flink does not know of, and that ``check`` does not find."""

    def __init__(self) -> None:
        self.counts: dict[bytes | None, int] = {}

    def count(self, key: bytes | None) -> int:
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]


class CountOutside:
    def __init__(self) -> None:
        self.outside = Outside()

    def __call__(self, record: Record) -> list[int]:
        return [self.outside.count(record.key)]


def counts_after_a_restart(folder: Path, step: Any) -> dict[bytes | None, list[int]]:
    """Each key's counts of its records, in order, where the job has restarted once; in RocksDB."""
    records = tuple(
        Record(f"t/0/{n}", n, 1, str(n % 5).encode(), origin=f"t/0/{n}") for n in range(1_500)
    )
    checkpoints = folder / "checkpoints"
    out = FailOnce(str(folder / "out"), rows_max=50, checkpoints=str(checkpoints))
    slow: Stream = sage.flow.read("in", ListSource(records)).map("slowly", out.slowly(0.025))
    graph = step(slow).write("out", out).dead_letters_to(FileSink(str(folder / "failed")))
    options = replace(RESTARTED, checkpoints=checkpoints.as_uri(), state_backend="rocksdb")

    sage.flow.submit(graph, name="counted", options=options)
    wait_until(lambda: len({r.id for r in out.read_records()}) >= len(records), 240, "all records")
    time.sleep(1)

    assert Path(f"{out.path}.writers").read_text() == "opened\n" * 2  # one restart
    newest = {r.id: r for r in out.read_records()}
    counts: dict[bytes | None, list[int]] = {}
    for record in sorted(newest.values(), key=lambda r: int(r.origin.rpartition("/")[2])):
        counts.setdefault(record.key, []).append(record.value)
    return counts


EXACT = {str(key).encode(): list(range(1, 301)) for key in range(5)}


def test_a_restart_counts_each_record_once(tmp_path, minicluster) -> None:
    folded = counts_after_a_restart(tmp_path, lambda s: s.fold("count", count, initial=0))

    assert folded == EXACT


def test_a_restart_loses_counts_that_are_not_in_the_state_of_flink(tmp_path, minicluster) -> None:
    lost = counts_after_a_restart(tmp_path, lambda s: s.flat_map("count", CountOutside()))

    assert lost.keys() == EXACT.keys()
    assert lost != EXACT


def test_a_restart_lets_no_record_pass_again(tmp_path, minicluster) -> None:
    records = keyed(1_500, late=0.1, seed=7, span_ms=60_000)
    checkpoints = tmp_path / "checkpoints"
    out = FailOnce(str(tmp_path / "out"), rows_max=50, checkpoints=str(checkpoints))
    other, failed = FileSink(str(tmp_path / "other")), FileSink(str(tmp_path / "failed"))

    def graph(slowly: Slowly, *sinks: Any) -> Graph:
        timed = (
            sage.flow.read("in", ListSource(records))
            .map("slowly", slowly)
            .event_time("time", out_of_order_s=OUT_OF_ORDER_S)
        )
        changes = timed.changes_only("changes", "w").write("out", sinks[0])
        limited = timed.rate_limit("limit", records_max=3, per_s=2).write("other", sinks[1])
        return sage.flow.pipeline(changes, limited, dead_letters=sinks[2])

    here = [FileSink(str(tmp_path / name)) for name in "abc"]
    outcome = asyncio.run(sage.flow.run(graph(Slowly(0.0), *here)))
    options = replace(RESTARTED, checkpoints=checkpoints.as_uri())
    there = graph(out.slowly(0.025), out, other, failed)
    sage.flow.submit(there, name="filters-restart", options=options)
    for sink, name in ((out, "out"), (other, "other")):
        expected = {record.id for record in outcome.written[name]}
        wait_until(lambda s=sink, e=expected: {r.id for r in s.read_records()} >= e, 240, name)
    time.sleep(1)

    assert Path(f"{out.path}.writers").read_text() == "opened\n" * 2  # one restart
    for sink, name in ((out, "out"), (other, "other")):
        passed = {record.id for record in outcome.written[name]}
        assert {record.id for record in sink.read_records()} == passed
        assert len(passed) < len(records)


def test_state_expires_on_flink(tmp_path, minicluster) -> None:
    records = tuple(Record(f"t/0/{n}", "x", 1, b"k", origin=f"t/0/{n}") for n in range(12))
    sinks = sinks_in(tmp_path, "brief", "long", "changes", "unchanged")
    slow = sage.flow.read("in", ListSource(records)).map("slowly", Slowly(0.3))
    branches = {
        "brief": slow.fold("brief", count, initial=0, ttl_s=0.1),
        "long": slow.fold("long", count, initial=0, ttl_s=600),
        "changes": slow.changes_only("changes", ttl_s=0.1),
        "unchanged": slow.changes_only("unchanged", ttl_s=600),
    }
    written = [branch.write(f"{name}-out", sinks[name]) for name, branch in branches.items()]
    graph = sage.flow.pipeline(*written, dead_letters=sinks["failed"])
    # Bundles of one: within a bundle the worker has the state.
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5, bundle_items=1)

    sage.flow.submit(graph, name="expires", options=options)
    wait_until(lambda: sinks["long"].count() == sinks["brief"].count() == 12, 240, "all records")
    wait_until(lambda: sinks["changes"].count() > 1, 60, "a record that passes again")
    time.sleep(1)

    values = {name: [record.value for record in sinks[name].read_records()] for name in branches}
    assert values["long"] == list(range(1, 13))
    # Some may have waited together: the first ones for the worker to start, others for the machine.
    assert values["brief"].count(1) >= 3
    assert values["unchanged"] == ["x"]
    assert sinks["failed"].count() == 0
