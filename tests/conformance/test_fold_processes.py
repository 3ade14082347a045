"""A fold whose workers, or whose whole cluster, die: each record is counted once.

A MiniCluster in a process of its own runs the job, and its Python workers are processes, as on a
cluster: where another test has run a job before, PyFlink would run the steps in the test's process.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from minicluster import FileSink, Slowly
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions
from sage_flink.flow.lists import ListSource

pytestmark = [pytest.mark.flink, pytest.mark.timeout(900)]

TESTS = Path(__file__).parents[1]
KEYS = 7


def count(state: int, record: Record) -> tuple[int, list[int]]:
    """The count of the key's records before this one; some records end the worker."""
    if record.value == "bad":
        os._exit(3)
    return state + 1, [state]


def numbered(values: list[str]) -> ListSource:
    """Records whose keys follow each other."""
    return ListSource(
        tuple(
            Record(f"r{n}", value, 1, f"k{n % KEYS}".encode(), origin=f"r{n}")
            for n, value in enumerate(values)
        )
    )


@contextlib.contextmanager
def running(folder: Path, pause_s: float, values: list[str], **options: Any) -> Iterator[None]:
    """The job, while the block runs; it ends like a machine without power."""
    paths = [str(TESTS / "conformance"), str(TESTS), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {
        "_python_worker_execution_mode": "process",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    call = f"jobs.submit({str(folder)!r}, {pause_s!r}, {values!r}, {options!r})"
    program = f"import test_fold_processes as jobs; {call}"
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=env,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield
        except BaseException:
            print_python_steps(process.pid)
            raise
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def print_python_steps(pid: int) -> None:
    """Print what the job's threads that wait for a Python worker do; one hung once."""
    for child in psutil.Process(pid).children(recursive=True):
        if child.name() == "java":
            jcmd = ["jcmd", str(child.pid), "Thread.print"]
            threads = subprocess.run(jcmd, capture_output=True, text=True, check=False).stdout
            print("\n\n".join(t for t in threads.split("\n\n") if "beam" in t))


def submit(folder: str, pause_s: float, values: list[str], options: dict[str, Any]) -> None:
    """Run the job until the input of this process ends; resumed, it has one more step."""
    out, failed = sinks(Path(folder))
    slow = sage.flow.read("in", numbered(values)).map("slowly", Slowly(pause_s))
    counted = slow.fold("count", count, initial=0)
    if options:
        counted = counted.map("behind", lambda record: record.value)
    limits = FlinkOptions(
        target="local",
        checkpoint_interval_s=0.3,
        bundle_items=20,  # a checkpoint passes between two bundles
        checkpoints=(Path(folder) / "checkpoints").as_uri(),
        restarts_max=0,
        **options,
    )
    graph = counted.write("out", out).dead_letters_to(failed)
    sage.flow.submit(graph, name="counts", options=limits)
    sys.stdin.read()


def sinks(folder: Path) -> tuple[FileSink, FileSink]:
    """What is written, and the dead letters."""
    return FileSink(str(folder / "out")), FileSink(str(folder / "failed"))


def exact(values: list[str]) -> dict[bytes, list[int]]:
    """Each key's counts."""
    good = [n % KEYS for n, value in enumerate(values) if value != "bad"]
    return {f"k{key}".encode(): list(range(good.count(key))) for key in range(KEYS)}


def counts(sink: FileSink) -> dict[bytes | None, list[int]]:
    """The counts that are written of each key, sorted; a record that is written again is one."""
    newest = {record.id: record for record in sink.read_records()}
    found: dict[bytes | None, list[int]] = {}
    for record in newest.values():
        found.setdefault(record.key, []).append(record.value)
    return {key: sorted(numbers) for key, numbers in found.items()}


def test_a_record_that_ends_the_worker_of_a_fold_is_a_dead_letter_and_is_not_counted(
    tmp_path: Path,
) -> None:
    values = ["good"] * 200
    values[50], values[51], values[120] = "bad", "bad", "bad"
    out, failed = sinks(tmp_path)

    with running(tmp_path, 0.0, values):  # without a restart: one would end the job
        wait_until(lambda: out.count() + failed.count() >= len(values), 300, "all records")
        time.sleep(2)

    assert counts(out) == exact(values)
    # Each is counted once. The sink runs in the process that ended: it may write a row again, as it
    # was, because a write is an upsert by id.
    assert len({(record.id, record.value) for record in out.read_records()}) == len(values) - 3
    letters = [from_message(record) for record in failed.read_records()]
    assert sorted(letter.id for letter in letters) == ["r120", "r50", "r51"]
    ended = "two Python workers ended while they ran count on this record"
    assert all(letter.reason.startswith(ended) for letter in letters)
    assert {letter.step for letter in letters} == {"count"}


def test_counts_go_on_from_a_checkpoint_at_another_parallelism_with_a_step_added(
    tmp_path: Path,
) -> None:
    values = ["good"] * 2_000
    out, failed = sinks(tmp_path)

    with running(tmp_path, 0.05, values):
        wait_until(lambda: out.count() >= 50, 240, "some records")
        before = newest(tmp_path)
        wait_until(lambda: newest(tmp_path) >= before + 2, 90, "a checkpoint of those records")
    written = out.count()
    (state,) = tmp_path.glob(f"checkpoints/*/chk-{newest(tmp_path)}")
    with running(tmp_path, 0.0, values, parallelism=3, savepoint=str(state)):
        wait_until(lambda: len({r.id for r in out.read_records()}) >= len(values), 200, "all")
        time.sleep(1)

    assert written < len(values)
    assert counts(out) == exact(values)
    assert failed.count() == 0


def newest(folder: Path) -> int:
    """The number of the newest checkpoint that is complete; 0 without one."""
    complete = folder.glob("checkpoints/*/chk-*/_metadata")
    return max((int(path.parent.name.removeprefix("chk-")) for path in complete), default=0)
