"""Savepoints, rescaling and kills of Flink on the real servers: each number is written once."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from waiting import wait_until

from benchmark_sage.mock_engine import MockEngine, mock_engine
from sage_connectors.kafka_client import delete_topic, drain, end_offsets, ensure_topic, feed
from sage_flink.common import sage_home
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.savepoints import folders_of, list_states

pytestmark = [
    pytest.mark.service,
    pytest.mark.flink,
    pytest.mark.alone,
    pytest.mark.timeout(600),
]

RATE = 60
SAGE = Path(sys.executable).with_name("sage")
JOB = Path(__file__).with_name("numbered.py")


@dataclass
class NumberedJob:
    """A running job, its topics, and a thread that feeds numbers into it."""

    rest: FlinkRest
    engine: MockEngine
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")
    feeder: threading.Thread = field(init=False)
    stop_event: threading.Event = field(default_factory=threading.Event)
    fed: int = 0

    def __post_init__(self) -> None:
        ensure_topic(f"{self.name}.in", 4)
        self.feeder = threading.Thread(target=self.feed)

    def feed(self) -> None:
        def numbers():
            while not self.stop_event.wait(1 / RATE):
                yield None, str(self.fed).encode()
                self.fed += 1

        feed(f"{self.name}.in", numbers())

    def stop_feeding(self) -> None:
        self.stop_event.set()
        if self.feeder.ident is not None:
            self.feeder.join(120)

    def sage(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "SAGE_GATEWAY_URL": self.engine.url}
        command = [str(SAGE), "jobs", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)

    def submit(self, *options: str) -> None:
        done = self.sage("submit", str(JOB), "--name", self.name, *options)
        assert done.returncode == 0, done.stderr
        self.wait_running()
        if self.feeder.ident is None:
            self.feeder.start()

    def wait_running(self) -> None:
        job = self.rest.job(self.name).id
        wait_until(lambda: self.rest.all_tasks_running(job), 120, "the job's tasks run")

    def stop(self) -> str:
        done = self.sage("stop", self.name, "--savepoint")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    def wait_more(self) -> float:
        """Seconds until a number fed after this call is visible to committed readers."""
        fed, began = self.fed, time.monotonic()
        wait_until(lambda: any(int(key) >= fed for key, _ in self.answers()), 180, "new output")
        return time.monotonic() - began

    def open_transactions(self) -> bool:
        return any(
            end_offsets(f"{self.name}.{topic}")
            != end_offsets(f"{self.name}.{topic}", read_committed=True)
            for topic in ("out", "dead")
        )

    def answers(self) -> list[tuple[str, dict[str, str]]]:
        return [(r.key.decode(), json.loads(r.value)) for r in drain(f"{self.name}.out")]

    def finish(self) -> list[tuple[str, dict[str, str]]]:
        """All answers; asserts that each number has exactly one and that no record failed."""
        self.stop_feeding()
        wait_until(lambda: len({key for key, _ in self.answers()}) >= self.fed, 180, "every number")
        time.sleep(3)  # a second copy would arrive by now
        answers = self.answers()
        times = Counter(key for key, _ in answers)
        assert len(times) == len(answers) == self.fed, times.most_common(3)
        assert list(drain(f"{self.name}.dead")) == []
        return answers


@pytest.fixture
def job():
    with (
        FlinkRest(stack.address(sage_home(), "jobmanager")) as rest,
        mock_engine("constant:1s") as engine,
    ):
        job = NumberedJob(rest, engine)
        yield job
        job.stop_feeding()
        if running := rest.running(job.name):
            rest.cancel(running.id)
    for topic in ("in", "out", "dead"):
        delete_topic(f"{job.name}.{topic}")


def test_a_job_continues_from_its_savepoint_with_its_calls_in_flight(job, capsys):
    job.submit()
    job.wait_more()
    path = job.stop()
    lingering = job.open_transactions()
    (listed, *_) = json.loads(job.sage("savepoints", job.name, "--json").stdout)
    refused = job.sage(
        "submit", str(JOB), "--name", job.name, "--ask", "inquire", "--from-savepoint", path
    )
    job.submit("--from-savepoint", "latest", "--mark", "second")
    answers = job.finish()

    assert not lingering
    assert (listed["kind"], listed["path"].rstrip("/")) == (
        "savepoint",
        path.replace("file:/", "file:///").rstrip("/"),
    )
    assert {value["mark"] for _, value in answers} == {"first", "second"}
    stats = job.engine.stats()
    with capsys.disabled():
        print(f"\n{stats['requests']} requests for {job.fed} numbers")
    assert stats["distinct_request_ids"] == job.fed

    # A renamed step is refused before the start, unless its state may be dropped.
    assert refused.returncode == 2
    assert "'ask'" in refused.stderr
    assert "new: 'inquire'. State" in refused.stderr
    assert "--drop-state 'ask'" in refused.stderr
    path = job.stop()
    job.submit("--ask", "inquire", "--from-savepoint", path, "--drop-state", "ask")


def test_a_job_is_rescaled_up_and_down_and_may_gain_a_step(job, capsys):
    job.submit()
    job.wait_more()
    for parallelism in ("2", "1"):
        began = time.monotonic()
        done = job.sage("rescale", job.name, parallelism)
        assert done.returncode == 0, done.stderr
        took, more = time.monotonic() - began, job.wait_more()
        with capsys.disabled():
            print(f"\nparallelism {parallelism}: {took:.1f} s, output {more:.1f} s later")
    assert job.engine.stats()["distinct_request_ids"] <= job.fed
    job.stop()
    assert not job.open_transactions()
    job.submit("--from-savepoint", "latest", "--again", "--mark", "again", "--parallelism", "2")
    answers = job.finish()

    assert {value["mark"] for _, value in answers} == {"first", "again"}


@pytest.mark.full
def test_a_cancelled_job_continues_from_its_last_checkpoint_and_a_drained_one_does_not(job, capsys):
    job.submit()
    job.wait_more()
    job.rest.cancel(job.rest.job(job.name).id)
    left_open = job.open_transactions()
    (kept, *_) = list_states(folders_of(job.name, job.rest))
    job.submit("--from-savepoint", "latest", "--mark", "second")
    job.finish()
    assert job.sage("stop", job.name).returncode == 0
    refused = job.sage("submit", str(JOB), "--name", job.name, "--from-savepoint", "latest")
    with capsys.disabled():
        print(f"\ncancelled: a transaction was left open: {left_open}")

    assert kept.kind == "checkpoint"
    assert not job.open_transactions()
    assert refused.returncode == 2
    assert "was drained last" in refused.stderr


@pytest.mark.drill
def test_jobs_continue_at_the_next_up_after_every_process_was_killed(job, capsys):
    job.submit()
    job.wait_more()
    job.stop_feeding()
    names = {status.name for status in stack.status(sage_home()) if status.pid}
    supervisor = int((sage_home() / "run" / "supervisord.pid").read_text())
    # The supervisor first, as in a crash of the machine: it must not restart the others.
    killed = [psutil.Process(supervisor), *stack.processes(sage_home())]
    for process in killed:
        process.kill()
    psutil.wait_procs(
        killed, timeout=30
    )  # then their ports are free, and the next start uses the same ones
    began = time.monotonic()
    stack.up(sage_home(), only=names, quiet=True)
    up = time.monotonic() - began
    job.finish()

    with capsys.disabled():
        print(f"\nup after {up:.1f} s, all of {job.fed} after {time.monotonic() - began:.1f} s")
