"""Broadcast joins on Flink: versions change at a checkpoint, also through a restart."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, FailOnce, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_connectors import generator
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions, Graph
from sage_flink.flow.lists import ListSource

pytestmark = [*QUIET, pytest.mark.flink, pytest.mark.timeout(240)]

#: For longer than the workers take to start: until then the sources run ahead of them.
SECONDS = 30
REQUESTS_PER_S = 60
VERSIONS_PER_S = 2
REQUESTS = SECONDS * REQUESTS_PER_S
INITIAL = {"anna": {"limit": 5}, "7": {"limit": 7, "deep": {"x": [1, None, "ü"]}}}


def request(n: int, random: Any) -> dict[str, int]:
    """A request with a setting that changes at once, whichever worker reads it."""
    return {"n": n, "at_once": int(time.time() * 10)}


def version(n: int, random: Any) -> Record:
    return Record(f"versions/0/{n}", {"number": n}, key=b"ask", origin=f"versions/0/{n}")


def rollout(sinks: Mapping[str, Any]) -> Graph:
    """Requests with a row that changes at checkpoints."""
    paced = generator(REQUESTS, per_s=REQUESTS_PER_S, make=request, name="requests")
    count = SECONDS * VERSIONS_PER_S
    changes = generator(count, per_s=VERSIONS_PER_S, make=version, name="versions")
    versions = sage.flow.read("versions", changes)
    requests = sage.flow.read("requests", paced)
    joined = requests.broadcast_join("rollout", versions, initial={"ask": {"number": -1}})
    return joined.write("out", sinks["out"]).dead_letters_to(sinks["failed"])


def flawed(sinks: Mapping[str, Any]) -> Graph:
    """Rows of which none can be read, and records of which some cannot."""
    rows = [
        Record("row/no key", {}),
        Record("row/no text", {}, key=b"\xff"),
        Record("row/no map", "text", key=b"anna"),
        Record("row/nothing", None, key=b"anna"),
        Record("row/a huge key", {}, key=b"x" * 5_000),
    ]
    values: list[Any] = [{"user": "anna", "b": 1, "all": "old"}, {"user": 7}, {"user": "bert"}]
    values += [{"user": None}, {"user": [1]}, "text", {str(n): n for n in range(40)} | {"user": 7}]
    records = [
        Record(f"record/{n}", value, n, b"k", {"h": b"1"}, f"record/{n}")
        for n, value in enumerate(values)
    ]
    changes = sage.flow.read("rows", ListSource(tuple(rows)))
    left = sage.flow.read("records", ListSource(tuple(records)))
    one = left.broadcast_join("one", changes, field="user", initial=INITIAL)
    every = one.broadcast_join("all", changes, initial=INITIAL)
    return every.write("out", sinks["out"]).dead_letters_to(sinks["failed"])


def sinks_in(folder: Path, *names: str) -> dict[str, FileSink]:
    folder.mkdir(exist_ok=True)
    return {name: FileSink(str(folder / name)) for name in (*names, "failed")}


def test_no_output_between_two_checkpoints_mixes_versions(tmp_path, minicluster) -> None:
    checkpoints = tmp_path / "checkpoints"
    sinks = sinks_in(tmp_path)
    sinks["out"] = FailOnce(
        str(tmp_path / "out"), rows_max=REQUESTS // 3, checkpoints=str(checkpoints)
    )
    options = FlinkOptions(
        target="local",
        parallelism=2,
        checkpoint_interval_s=0.2,
        checkpoints=checkpoints.as_uri(),
    )

    sage.flow.submit(rollout(sinks), name="rollout", options=options)
    wait_until(lambda: len(newest(sinks["out"])) >= REQUESTS, 150, "all requests")
    time.sleep(1)

    made = newest(sinks["out"])
    versions = [record.value["rollout"] for record in made]
    numbers = {(one["version"], one["rows"]["ask"]["number"]) for one in versions}
    assert Path(f"{sinks['out'].path}.writers").read_text() == "opened\n" * 4  # one restart
    assert mixed(made, lambda value: value["rollout"]["version"]) == 0
    assert mixed(made, lambda value: value["at_once"]) > 0
    assert len(numbers) == len({version for version, _ in numbers}) > 5
    assert sinks["failed"].count() == 0


def test_both_targets_make_the_same_records_and_dead_letters(tmp_path, minicluster) -> None:
    here, there = (sinks_in(tmp_path / name, "out") for name in ("here", "there"))

    outcome = asyncio.run(sage.flow.run(flawed(here)))
    options = FlinkOptions(target="local", parallelism=2, checkpoint_interval_s=0.5)
    sage.flow.submit(flawed(there), name="rows", options=options)
    expected, failed = outcome.written["out"], outcome.failed
    wait_until(lambda: there["out"].count() >= len(expected), 60, "all records")
    wait_until(lambda: there["failed"].count() >= len(failed), 60, "all dead letters")

    assert (len(expected), len(failed)) == (4, 2 * 5 + 3)
    assert sorted(map(comparable, there["out"].read_records())) == sorted(map(comparable, expected))
    letters = map(from_message, there["failed"].read_records())
    assert sorted(map(letter, letters)) == sorted(map(letter, failed))


def mixed(records: list[Record], version_of: Callable[[Any], int]) -> int:
    """How many have an older version than a record that their source made before.

    The source is one subtask, so a barrier is at one number of it: where all subtasks change
    their version at the same barrier, the version of its numbers never goes back.
    """
    count = newest_version = 0
    for record in sorted(records, key=lambda record: record.value["n"]):
        made = version_of(record.value)
        count += made < newest_version
        newest_version = max(made, newest_version)
    return count


def newest(sink: FileSink) -> list[Record]:
    """The last record of each id: a restart repeats those since the last checkpoint."""
    return list({record.id: record for record in sink.read_records()}.values())


def comparable(record: Record) -> tuple[Any, ...]:
    """All fields of the record, which both targets make alike."""
    fields = (record.id, record.timestamp_ms, record.key, record.origin, record.kind)
    return *fields, repr(sorted(record.headers.items())), repr(record.value)


def letter(failed: Any) -> tuple[str, str, str]:
    return failed.id, failed.step, failed.reason
