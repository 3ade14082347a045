"""The worker server with real workers: they end as the plain interpreter's, and never alone."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from waiting import has_ended, wait_until

from sage_flink.platform.stack import worker_server

pytestmark = pytest.mark.processes

COMMAND = Path(sys.executable).with_name("sage-worker-python")
WORKER = (str(COMMAND), "-m", "pyflink.fn_execution.beam.beam_boot")


@pytest.fixture(scope="module")
def server():
    address = f"sage-workers-test-{uuid.uuid4()}"
    script = worker_server.__file__
    with subprocess.Popen([sys.executable, "-I", script, address]) as running:
        wait_until(lambda: connects(address), 10, "the socket")
        start(address).communicate(timeout=60)  # it answers when its libraries are loaded
        yield running, address
        running.kill()


@pytest.fixture
def silent():
    """The address of a provision server that never answers, so that a worker waits for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def connects(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return not connection.connect_ex("\0" + address)


def start(address: str, *arguments: str, folder: str | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "SAGE_WORKER_SERVER": address, "PYTHONPATH": ""}
    return subprocess.Popen(
        [*WORKER, *arguments],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def waiting_worker(running: subprocess.Popen, address: str, silent: str):
    """A command and the worker that the server made for it."""
    before = set(psutil.Process(running.pid).children())
    command = start(address, "--id=1-1", f"--provision_endpoint={silent}")
    made = wait_until(
        lambda: set(psutil.Process(running.pid).children()) - before, 30, "the worker"
    )
    return command, made.pop()


@pytest.mark.parametrize("place", ["server", "nobody listens there", ""])
def test_a_worker_ends_with_the_same_status_and_message_with_and_without_a_server(server, place):
    with start(server[1] if place == "server" else place) as command:
        output, _ = command.communicate(timeout=60)

    assert "No id provided" in output
    assert command.returncode == 1


def test_a_worker_has_the_folder_the_arguments_and_the_environment_of_its_command(
    server, silent, tmp_path
):
    running, address = server
    before = set(psutil.Process(running.pid).children())
    arguments = ("--id=7-7", f"--provision_endpoint={silent}")
    with start(address, *arguments, folder=str(tmp_path)) as command:
        made = wait_until(
            lambda: set(psutil.Process(running.pid).children()) - before, 30, "the worker"
        ).pop()
        assert "--id=7-7" in command.stdout.readline()
        assert Path(made.cwd()) == tmp_path
        command.kill()


def test_any_other_command_is_the_plain_interpreter(server):
    code = "import sys; print(sys.executable, sys.argv[1:])"
    environment = {**os.environ, "SAGE_WORKER_SERVER": server[1]}
    done = subprocess.run(
        [COMMAND, "-c", code, "a b"], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split(" ", 1) == [sys.executable, "['a b']\n"]


def test_a_killed_command_takes_its_worker_along_and_no_other_one(server, silent):
    running, address = server
    first, worker = waiting_worker(running, address, silent)
    second, other = waiting_worker(running, address, silent)
    with first, second:
        first.kill()

        wait_until(lambda: has_ended(worker.pid), 10, "the worker's end")
        assert not has_ended(other.pid)
        second.kill()


def test_a_killed_worker_ends_its_command_with_the_signal(server, silent):
    command, worker = waiting_worker(*server, silent)
    with command:
        worker.kill()

        assert command.wait(10) == 128 + signal.SIGKILL


def test_a_killed_server_takes_its_workers_along(silent):
    address = f"sage-workers-test-{uuid.uuid4()}"
    with subprocess.Popen([sys.executable, "-I", worker_server.__file__, address]) as running:
        wait_until(lambda: connects(address), 10, "the socket")
        command, worker = waiting_worker(running, address, silent)
        with command:
            running.kill()

            assert command.wait(10) == 128 + signal.SIGKILL
            wait_until(lambda: has_ended(worker.pid), 10, "the worker's end")


@pytest.mark.parametrize("rubbish", [b"", b"\xff" * 8, b"\0" * 7 + b"\x02{]", b"GET /\r\n\r\n"])
@pytest.mark.parametrize("files", [[], [0, 1, 2]])
def test_rubbish_is_refused_and_the_next_worker_is_made(server, silent, rubbish, files):
    running, address = server
    wait_until(lambda: not psutil.Process(running.pid).children(), 10, "the workers of other tests")
    open_files = psutil.Process(running.pid).num_fds()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + address)
        if rubbish:
            socket.send_fds(connection, [rubbish], files)
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    wait_until(
        lambda: psutil.Process(running.pid).num_fds() <= open_files, 10, "the server's files closed"
    )

    command, _ = waiting_worker(running, address, silent)
    with command:
        command.kill()
