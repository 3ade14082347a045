"""Start, status and stop without the real servers; the process guard with real processes."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from waiting import has_ended

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.progress import ProgressTable
from sage_flink.platform.stack import down, log_path, process_guard, status, up
from sage_flink.platform.stack.lifecycle import failure_message, failure_reason
from sage_flink.platform.stack.ports import DEFAULT_PORTS
from sage_flink.platform.stack.server import Server
from sage_flink.platform.stack.servers import SERVERS
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.status import server_state, serves
from sage_flink.platform.stack.supervisor import SupervisedProcess


def process(state, pid=0):
    return SupervisedProcess(
        name="kafka", state=state, pid=pid, started_s=0.0, message="Exited too quickly"
    )


@pytest.mark.parametrize(
    ("process", "ready", "state"),
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
def test_a_server_is_ready_only_when_it_runs_and_answers(process, ready, state):
    assert server_state(process, ready, orphaned=False)[0] == state


def test_a_server_whose_port_another_stack_s_server_took_is_not_ready():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ports = {"kafka": listening.getsockname()[1]}
        server = Server(
            name="kafka",
            command=(),
            folder=Path(),
            ports=("kafka",),
            url="",
            ready=lambda: True,
        )

        assert serves(server, os.getpid(), ports)
        assert not serves(server, os.getpid(), {"kafka": ports["kafka"] + 1})
        assert serves(replace(server, ports=()), os.getpid(), {})


def test_the_hint_for_a_server_without_its_supervisor_is_the_next_step():
    assert server_state(None, False, orphaned=True) == (
        "failed",
        "runs without its supervisor: `sage down`, then `sage up`",
    )


def test_all_servers_of_a_new_stack_are_stopped(tmp_path):
    assert {server.state for server in status(tmp_path)} == {"stopped"}
    assert [server.name for server in status(tmp_path)] == list(SERVERS)


def test_stopping_a_stack_that_never_ran_is_harmless(tmp_path):
    assert down(tmp_path) == []


def test_up_without_setup_names_the_setup_command_and_starts_no_server(tmp_path):
    with pytest.raises(StackError, match=r"run `bash infra/setup\.sh`"):
        up(tmp_path, only={"influxdb"}, quiet=True)

    assert {server.state for server in status(tmp_path)} == {"stopped"}


def test_a_log_is_found_by_the_name_of_its_server(tmp_path):
    with pytest.raises(ConfigError, match="no log for 'redis': the logs are kafka"):
        log_path(tmp_path, "redis")
    with pytest.raises(ConfigError, match="run `sage up`"):
        log_path(tmp_path, "kafka")


def test_a_start_fails_when_the_server_dies_repeatedly_or_takes_too_long(tmp_path):
    server = SERVERS["kafka"](StackDirectory.at(tmp_path), DEFAULT_PORTS)

    assert failure_reason(server, process("BACKOFF"), {1, 2}, 3.0) == ""
    assert (
        failure_reason(server, process("BACKOFF"), {1, 2, 3, 4}, 3.0)
        == "died 4 times while starting"
    )
    assert failure_reason(server, process("RUNNING", 1), {1}, 121.0) == "not ready after 120 s"


def test_the_failure_message_has_the_end_of_the_log_and_the_next_step(tmp_path):
    home = StackDirectory.at(tmp_path)
    home.log("kafka").parent.mkdir()
    home.log("kafka").write_text("one\nOutOfMemoryError\n")

    text = failure_message(
        home, SERVERS["kafka"](home, DEFAULT_PORTS), "died 4 times while starting"
    )

    assert "kafka died 4 times while starting" in text
    assert "OutOfMemoryError" in text
    assert "run `sage up` again" in text


def test_without_a_terminal_each_server_is_one_line_when_it_is_ready():
    out = io.StringIO()

    with ProgressTable("sage up", ["kafka", "milvus"], Console(file=out)) as progress:
        progress.mark("kafka", "working", "starting")
        progress.mark("kafka", "ready", "127.0.0.1:9092")
        progress.mark("kafka", "ready", "127.0.0.1:9092")

    assert out.getvalue().splitlines() == ["kafka        ready     0.0 s  127.0.0.1:9092"]


GUARD = str(Path(process_guard.__file__))
# A server with a child in its own session, which survives the death of its parent.
SERVER = (
    "import subprocess, sys, time; "
    "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
    " start_new_session=True); print(c.pid, flush=True); time.sleep(60)"
)


@pytest.fixture
def guarded_server(tmp_path):
    environment = {**os.environ, "SAGE_STACK": str(tmp_path), "SAGE_SERVER": "taskmanager"}
    command = [sys.executable, "-I", GUARD, sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as running:
        worker = int(running.stdout.readline())
        yield running, worker, tmp_path
        running.kill()
        process_guard.end_processes(process_guard.find_processes({"SAGE_STACK": str(tmp_path)}))


def ends(pid):
    deadline = time.monotonic() + 10
    while not has_ended(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_killing_the_server_ends_its_workers_and_the_guard(guarded_server):
    running, worker, _ = guarded_server
    server = psutil.Process(running.pid).children()[0]

    server.send_signal(signal.SIGKILL)

    assert running.wait(10) == 128 + signal.SIGKILL
    assert ends(worker)


def test_killing_the_guard_ends_the_server(guarded_server):
    running, _, _ = guarded_server
    server = psutil.Process(running.pid).children()[0].pid

    running.kill()

    assert ends(server)


def test_the_next_guard_ends_the_workers_of_a_killed_one(guarded_server):
    running, worker, home = guarded_server
    environment = {**os.environ, "SAGE_STACK": str(home), "SAGE_SERVER": "taskmanager"}
    running.kill()
    running.wait()

    command = [sys.executable, "-I", GUARD, sys.executable, "-c", "pass"]
    subprocess.run(command, env=environment, check=True, timeout=20)

    assert ends(worker)


def test_marks_find_processes_of_one_stack_only(guarded_server):
    _, worker, home = guarded_server

    assert worker in {p.pid for p in process_guard.find_processes({"SAGE_STACK": str(home)})}
    assert process_guard.find_processes({"SAGE_STACK": str(home / "other")}) == []
