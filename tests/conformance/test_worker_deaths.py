"""A record that ends its Python worker is one dead letter; every other record is emitted once.

The sink is written at least once: its worker is the one that dies, and what it has written without
having said so is written again. Therefore a record carries the run of the step that emitted it.

A MiniCluster in a process of its own runs the job, and its Python workers are processes, as on a
cluster: where another test has run a job before, PyFlink would run the steps in the test's process.
"""

import contextlib
import ctypes
import os
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from minicluster import FileSink
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import DeadLetter, from_message
from sage_flink.flow import BatchLimits, FlinkOptions, Refusal, Stream
from sage_flink.flow.lists import ListSource

pytestmark = [pytest.mark.flink, pytest.mark.timeout(400)]


TESTS = Path(__file__).parents[1]
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
    """The record, with a number of this run of the step as its value; some records end the worker,
    as their values say.
    """

    def __call__(self, record: Record) -> Iterable[Record]:
        end(record.value)
        yield record.replace(value=uuid.uuid4().hex)


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


@contextlib.contextmanager
def running(case: str, folder: Path) -> Iterator[None]:
    """The job of ``case``, while the block runs."""
    paths = [str(TESTS / "conformance"), str(TESTS), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {
        "_python_worker_execution_mode": "process",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    program = f"import test_worker_deaths as jobs; jobs.submit({case!r}, {str(folder)!r})"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program], env=env, stdin=subprocess.PIPE, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.communicate()  # the end of its input ends it


def submit(case: str, folder: str) -> None:
    """Run the job of ``case`` until the input of this process ends."""
    sink, failed = sinks(Path(folder))
    graph = GRAPHS[case](sink).dead_letters_to(failed)
    sage.flow.submit(graph, name=case, options=OPTIONS)
    sys.stdin.read()


def sinks(folder: Path) -> tuple[FileSink, FileSink]:
    """What is written, and the dead letters."""
    return FileSink(str(folder / "out")), FileSink(str(folder / "failed"))


def run(case: str, folder: Path, count: int) -> tuple[list[Record], list[DeadLetter]]:
    """The records that are written, and the dead letters, when ``count`` ids have ended."""
    sink, failed = sinks(folder)

    def ended() -> bool:
        return len({record.id for record in sink.read_records()}) + failed.count() >= count

    with running(case, folder):
        wait_until(ended, 300, f"{count} ids")
        time.sleep(2)
    return sink.read_records(), [from_message(record) for record in failed.read_records()]


def records(bad: tuple[str, ...], count: int = 60) -> tuple[Record, ...]:
    """Records among which the bad ones are spread."""
    values = ["good"] * count
    values[5 : 5 + 7 * len(bad) : 7] = bad
    return tuple(Record(f"r{n}", value, origin=f"r{n}") for n, value in enumerate(values))


def deaths(sink: FileSink) -> Stream:
    """A step whose worker ends at some records."""
    given = ListSource(records((*DEATHS, EXIT)))
    return sage.flow.read("in", given).flat_map("first", EndsAtBad()).write("out", sink)


def writer_death(sink: FileSink) -> Stream:
    """A sink whose worker ends at one record."""
    return sage.flow.read("in", ListSource(records(("bad",)))).write("out", EndingSink(sink))


def batch_death(sink: FileSink) -> Stream:
    """A function of batches whose worker ends at one record."""
    read = sage.flow.read("in", ListSource(records(("bad",))))
    return read.map_batches("batched", ends_at_bad, items_max=20).write("out", sink)


def ends_at_bad(batch: Sequence[Record]) -> list[str]:
    if any(record.value == "bad" for record in batch):
        os._exit(3)
    return [record.value for record in batch]


GRAPHS = {"deaths": deaths, "writer-death": writer_death, "batch-death": batch_death}


def test_a_record_that_ends_its_worker_is_one_dead_letter(tmp_path: Path) -> None:
    given = records((*DEATHS, EXIT))

    written, letters = run("deaths", tmp_path, len(given))

    reasons = {letter.id: letter.reason for letter in letters}
    bad = {r.id: r.value for r in given if r.value != "good"}
    assert len(letters) == len(reasons)
    assert reasons.keys() == bad.keys()
    assert {letter.step for letter in letters} == {"first"}
    for id_, how in bad.items():
        ended = "two Python workers ended while they ran first on this record"
        exited = "SystemExit: it says so (test_worker_deaths.py:"
        assert reasons[id_].startswith(exited if how == EXIT else ended)
    emitted = Counter(id_ for id_, _ in {(record.id, record.value) for record in written})
    assert emitted == Counter(r.id for r in given if r.value == "good")


@pytest.mark.parametrize(("case", "step"), [("writer-death", "out"), ("batch-death", "batched")])
def test_a_record_that_ends_the_worker_of_its_batch_is_one_dead_letter(
    tmp_path: Path, case: str, step: str
) -> None:
    written, (letter,) = run(case, tmp_path, 60)

    assert (letter.id, letter.step) == ("r5", step)
    assert {r.id for r in written} == {r.id for r in records(("bad",)) if r.value == "good"}
