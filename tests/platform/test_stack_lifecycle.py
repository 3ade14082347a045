"""Start, judge and stop, without the real servers; and the guard, with real processes."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from waiting import ended

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.progress import Board
from sage_flink.platform.stack import down, guard, log_path, status, up
from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.lifecycle import complaint, problem
from sage_flink.platform.stack.parts import PARTS
from sage_flink.platform.stack.ports import USUAL
from sage_flink.platform.stack.status import judge
from sage_flink.platform.stack.supervise import Process


def process(state, pid=0):
    return Process(name="kafka", state=state, pid=pid, started_s=0.0, word="Exited too quickly")


@pytest.mark.parametrize(
    ("given", "ready", "state"),
    [
        (None, False, "stopped"),
        (process("STOPPED"), False, "stopped"),
        (process("STARTING", 7), False, "starting"),
        (process("RUNNING", 7), False, "starting"),
        (process("RUNNING", 7), True, "ready"),
        (process("BACKOFF"), False, "restarting"),
        (process("EXITED"), False, "restarting"),
        (process("FATAL"), False, "failed"),
    ],
)
def test_a_part_is_ready_only_when_it_runs_and_answers(given, ready, state):
    assert judge(given, ready, orphaned=False)[0] == state


def test_a_part_without_its_supervisor_says_the_next_step():
    assert judge(None, False, orphaned=True) == (
        "failed",
        "runs without its supervisor: `sage down`, then `sage up`",
    )


def test_a_stack_that_never_ran_is_all_stopped(tmp_path):
    assert {part.state for part in status(tmp_path)} == {"stopped"}
    assert [part.name for part in status(tmp_path)] == list(PARTS)


def test_stopping_what_never_ran_is_harmless(tmp_path):
    assert down(tmp_path) == []


def test_up_without_setup_names_the_command_and_starts_nothing(tmp_path):
    with pytest.raises(StackError, match=r"run `bash infra/setup\.sh`"):
        up(tmp_path, only={"influxdb"}, quiet=True)

    assert {part.state for part in status(tmp_path)} == {"stopped"}


def test_a_log_is_asked_for_by_the_name_of_a_part(tmp_path):
    with pytest.raises(ConfigError, match="no log for 'redis': there are kafka"):
        log_path(tmp_path, "redis")
    with pytest.raises(ConfigError, match="run `sage up`"):
        log_path(tmp_path, "kafka")


def test_a_part_is_given_up_when_it_dies_again_and_again_or_takes_too_long(tmp_path):
    part = PARTS["kafka"](Home.at(tmp_path), USUAL)

    assert problem(part, process("BACKOFF"), {1, 2}, 3.0) == ""
    assert problem(part, process("BACKOFF"), {1, 2, 3, 4}, 3.0) == "died 4 times while starting"
    assert problem(part, process("RUNNING", 1), {1}, 61.0) == "not ready after 60 s"


def test_the_complaint_carries_the_last_words_and_the_next_step(tmp_path):
    home = Home.at(tmp_path)
    home.log("kafka").parent.mkdir()
    home.log("kafka").write_text("one\nOutOfMemoryError\n")

    text = complaint(home, PARTS["kafka"](home, USUAL), "died 4 times while starting")

    assert "kafka died 4 times while starting" in text
    assert "OutOfMemoryError" in text
    assert "run `sage up` again" in text


def test_without_a_terminal_each_part_is_one_line_when_it_is_done():
    out = io.StringIO()

    with Board("sage up", ["kafka", "milvus"], Console(file=out)) as board:
        board.mark("kafka", "working", "starting")
        board.mark("kafka", "ready", "127.0.0.1:9092")
        board.mark("kafka", "ready", "127.0.0.1:9092")

    assert out.getvalue().splitlines() == ["kafka        ready     0.0 s  127.0.0.1:9092"]


GUARD = str(Path(guard.__file__))
# A server with a child in a session of its own: what a killed parent leaves behind.
SERVER = (
    "import subprocess, sys, time; "
    "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
    " start_new_session=True); print(c.pid, flush=True); time.sleep(60)"
)


@pytest.fixture
def guarded(tmp_path):
    environment = {**os.environ, "SAGE_STACK": str(tmp_path), "SAGE_PART": "taskmanager"}
    command = [sys.executable, "-I", GUARD, sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as running:
        worker = int(running.stdout.readline())
        yield running, worker, tmp_path
        running.kill()
        guard.end(guard.marked({"SAGE_STACK": str(tmp_path)}))


def gone(pid):
    deadline = time.monotonic() + 10
    while not ended(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_killing_the_server_ends_its_workers_and_the_guard(guarded):
    running, worker, _ = guarded
    server = psutil.Process(running.pid).children()[0]

    server.send_signal(signal.SIGKILL)

    assert running.wait(10) == 128 + signal.SIGKILL
    assert gone(worker)


def test_killing_the_guard_ends_the_server(guarded):
    running, _, _ = guarded
    server = psutil.Process(running.pid).children()[0].pid

    running.kill()

    assert gone(server)


def test_the_next_guard_ends_the_workers_of_a_killed_one(guarded):
    running, worker, home = guarded
    environment = {**os.environ, "SAGE_STACK": str(home), "SAGE_PART": "taskmanager"}
    running.kill()
    running.wait()

    command = [sys.executable, "-I", GUARD, sys.executable, "-c", "pass"]
    subprocess.run(command, env=environment, check=True, timeout=20)

    assert gone(worker)


def test_marks_find_processes_of_one_stack_only(guarded):
    _, worker, home = guarded

    assert worker in {p.pid for p in guard.marked({"SAGE_STACK": str(home)})}
    assert guard.marked({"SAGE_STACK": str(home / "other")}) == []
