"""Runs one server and leaves none of its children behind, whatever ends it.

usage: guard.py COMMAND...

Run by file path with `python -I`: it stays small, since the package is not imported.

A TaskManager that is killed with -9 leaves its Python workers running for as long as the machine
does, with their memory and their open connections. Three nets: the guard is the subreaper of all
that descends from it and ends them when the server has ended; the server dies with the guard;
and a guard that starts first ends what an earlier one, itself killed, has left.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_S = 3.0
MARKS = ("SAGE_STACK", "SAGE_PART")


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2); elsewhere nothing, and the third net alone holds."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def end(processes: list[psutil.Process]) -> None:
    """Ask ``processes`` to end, wait, and kill what is left."""
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


def marked(marks: Mapping[str, str]) -> list[psutil.Process]:
    """Processes whose environment holds all ``marks``, without this one and those above it."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue  # gone meanwhile, or another user's
        if process.pid not in mine and marks.items() <= environment.items():
            found.append(process)
    return found


def part_names(processes: list[psutil.Process]) -> set[str]:
    """The parts that ``processes`` belong to."""
    names = set()
    for process in processes:
        with suppress(psutil.Error):  # ended meanwhile
            names.add(process.environ().get("SAGE_PART", ""))
    return names - {""}


def main(command: list[str]) -> int:
    """The server's exit status, once nothing that it started runs any more."""
    marks = {key: os.environ[key] for key in MARKS if key in os.environ}
    if len(marks) == len(MARKS):
        end(marked(marks))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # The child has one thread when this runs, and ours has one too: safe after fork.
    server = subprocess.Popen(command, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: server.send_signal(got))
    status = server.wait()
    time.sleep(0.05)  # orphans reach the subreaper just after their parent's end is reported
    while children := psutil.Process().children(recursive=True):
        end(children)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
