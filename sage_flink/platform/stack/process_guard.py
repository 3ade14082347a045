"""Process guard: runs one server and ends all its descendants when the server ends.

usage: process_guard.py [--workers] COMMAND...

With ``--workers`` it also runs the worker server (``worker_server.py``), and the server's
environment has its address.

Run by file path with `python -I`: the guard stays small because it does not import the package.

After kill -9 on a TaskManager its Python workers would keep running, with their memory and open
connections. Three measures prevent that: the guard is the subreaper of all its descendants and
ends them when the server has ended; the server dies with the guard; and a guard that starts first
ends the processes of an earlier guard that was killed itself.
"""

import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_S = 3.0
WORKERS, WORKER_SERVER = "SAGE_WORKER_SERVER", Path(__file__).with_name("worker_server.py")
MARKS = ("SAGE_STACK", "SAGE_SERVER")


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2). On other systems a no-op, and only the third measure works."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def end_processes(processes: list[psutil.Process]) -> None:
    """Terminate ``processes``, wait, and kill those that still run."""
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    for process in psutil.wait_procs(processes, timeout=GRACE_S)[1]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def find_processes(marks: Mapping[str, str]) -> list[psutil.Process]:
    """Processes with all ``marks`` in their environment, except this one and its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue  # it has ended, or it is another user's
        if process.pid not in own and marks.items() <= environment.items():
            found.append(process)
    return found


def server_names(processes: list[psutil.Process]) -> set[str]:
    """The servers that ``processes`` belong to."""
    names = set()
    for process in processes:
        with suppress(psutil.Error):  # it has ended
            names.add(process.environ().get("SAGE_SERVER", ""))
    return names - {""}


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """A child that dies with this process."""
    # The child has one thread when this runs, and ours has one too: safe after fork.
    return subprocess.Popen(command, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))


def main(command: list[str]) -> int:
    """Run the server and return its exit status, after all its descendants have ended."""
    marks = {key: os.environ[key] for key in MARKS if key in os.environ}
    if len(marks) == len(MARKS):
        end_processes(find_processes(marks))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    if command[0] == "--workers":
        command = command[1:]
        os.environ[WORKERS] = f"sage-workers-{os.getpid()}-{secrets.token_hex(8)}"
        start([sys.executable, "-I", str(WORKER_SERVER), os.environ[WORKERS]])
    server = start(command)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: server.send_signal(received))
    status = server.wait()
    time.sleep(0.05)  # orphans reach the subreaper just after their parent's end is reported
    while children := psutil.Process().children(recursive=True):
        end_processes(children)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
