"""A record that ends its Python worker is one dead letter; every other record is delivered once.

A MiniCluster runs the job; its Python workers are processes, as on a cluster.
"""

import ctypes
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, FileSink, restore_environment
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import DeadLetter, from_message
from sage_flink.flow import BatchLimits, FlinkOptions, Refusal
from sage_flink.flow.lists import ListSource

pytestmark = [pytest.mark.flink, pytest.mark.timeout(400), *QUIET]


@pytest.fixture(autouse=True)
def worker_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("_python_worker_execution_mode", "process")
    tests = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parent.parent}"
    monkeypatch.setenv("PYTHONPATH", tests + os.pathsep + os.environ.get("PYTHONPATH", ""))
    yield from restore_environment()


#: A restart would fail the job.
OPTIONS = FlinkOptions(
    target="local", checkpoint_interval_s=0.5, record_timeout_s=4, restarts_max=2
)


#: What records do to their worker: each of the first five ends it, the last one tries.
DEATHS = ("os._exit", "SIGSEGV", "recursion", "loop", "regular expression")
EXIT = "sys.exit"


def end(how: str) -> None:
    """End this process, or never return; return at any other value."""
    match how:
        case "os._exit":
            os._exit(3)
        case "SIGSEGV":
            ctypes.string_at(0)
        case "recursion":
            sys.setrecursionlimit(10**9)
            recurse()
        case "loop":
            while True:
                time.sleep(0.01)
        case "regular expression":
            re.match(r"(a+)+$", "a" * 60 + "b")
        case "sys.exit":
            sys.exit("it says so")


def recurse() -> None:
    recurse()


@dataclass(frozen=True)
class EndsAtBad:
    """The record; some end the worker, as their values say."""

    def __call__(self, record: Record) -> Iterable[Record]:
        end(record.value)
        yield record


@dataclass(frozen=True)
class EndingSink:
    """A file, whose writer ends the worker at a record with the value ``bad``."""

    file: FileSink
    batch: BatchLimits = field(default_factory=lambda: BatchLimits(items_max=20))

    def writer(self) -> "EndingSink":
        return self

    def write(self, records: list[Record]) -> list[Refusal]:
        if any(record.value == "bad" for record in records):
            os._exit(3)
        return list(self.file.write(records))

    def close(self) -> None:
        """Nothing is open."""


def run(graph: Any, name: str, sink: FileSink, failed: FileSink, count: int) -> list[DeadLetter]:
    """Run the job until ``count`` ids are in one of both files, and give it time for more."""
    sage.flow.submit(graph, name=name, options=OPTIONS)
    wait_until(lambda: sink.count() + failed.count() >= count, 300, f"{count} ids")
    time.sleep(2)
    return [from_message(record) for record in failed.read_records()]


def records(bad: tuple[str, ...], count: int = 60) -> tuple[Record, ...]:
    """Records among which the bad ones are spread."""
    values = ["good"] * count
    values[5 : 5 + 7 * len(bad) : 7] = bad
    return tuple(Record(f"r{n}", value, origin=f"r{n}") for n, value in enumerate(values))


def test_a_record_that_ends_its_worker_is_one_dead_letter(tmp_path: Path) -> None:
    sink, failed = (FileSink(str(tmp_path / name)) for name in ("out", "failed"))
    given = records((*DEATHS, EXIT))
    graph = (
        sage.flow.read("in", ListSource(given))
        .flat_map("first", EndsAtBad())
        .write("out", sink)
        .dead_letters_to(failed)
    )

    letters = run(graph, "deaths", sink, failed, len(given))

    reasons = {letter.id: letter.reason for letter in letters}
    bad = {r.id: r.value for r in given if r.value != "good"}
    assert len(letters) == len(reasons)
    assert reasons.keys() == bad.keys()
    assert {letter.step for letter in letters} == {"first"}
    for id_, how in bad.items():
        ended = "two Python workers ended while they ran first on this record"
        exited = "SystemExit: it says so (test_worker_deaths.py:"
        assert reasons[id_].startswith(exited if how == EXIT else ended)
    ids = Counter(record.id for record in sink.read_records())
    assert ids == Counter(r.id for r in given if r.value == "good")


def test_a_record_that_ends_the_writer_of_its_batch_is_one_dead_letter(tmp_path: Path) -> None:
    sink, failed = (FileSink(str(tmp_path / name)) for name in ("out", "failed"))
    graph = (
        sage.flow.read("in", ListSource(records(("bad",))))
        .write("out", EndingSink(sink))
        .dead_letters_to(failed)
    )

    (letter,) = run(graph, "writer-deaths", sink, failed, 60)

    assert (letter.id, letter.step) == ("r5", "out")
    ids = {record.id for record in sink.read_records()}
    assert ids == {r.id for r in records(("bad",)) if r.value == "good"}
