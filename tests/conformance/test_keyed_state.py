"""Steps with state for each key on Flink, compared with those in process."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, FileSink, restore_environment, wait_for_workers
from waiting import wait_until
from window_truth import OUT_OF_ORDER_S, shuffled

import sage_flink as sage
from sage_flink.common import FailedRecord, Record
from sage_flink.common.dead_letters import DeadLetter, from_message
from sage_flink.flow import FlinkOptions, Graph
from sage_flink.flow.lists import ListSource

pytestmark = [*QUIET, pytest.mark.flink, pytest.mark.timeout(200)]

#: What no keyed step takes, but event time does.
FLAWED = (
    Record("no key", {}, 1_000_000, None, origin="t/0/99999"),
    Record("a huge key", {}, 1_000_000, b"x" * 4_097, origin="t/0/99999"),
    Record("an empty key", {"w": "a"}, 1_000_000, b"", origin="t/0/99999"),
)


@pytest.fixture
def minicluster() -> Iterator[None]:
    yield from restore_environment()
    wait_for_workers()


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
