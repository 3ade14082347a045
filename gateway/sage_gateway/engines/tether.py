"""A launcher that ties a command to a process: ``tether.py PARENT GRACE_S RECORD COMMAND...``.

It executes COMMAND in its place. With a GRACE_S of 0 COMMAND is killed when PARENT dies, however it
dies: Linux signals a child when its parent dies (prctl PR_SET_PDEATHSIG), and the setting survives
exec. Otherwise COMMAND outlives PARENT, and a watcher process, which is not its child, ends COMMAND

* when PARENT has died and RECORD does not exist, because no gateway needs COMMAND any more,
* when PARENT has died and RECORD has no other running owner within GRACE_S seconds.

RECORD is JSON with a number ``owner``, a process id. The watcher ends with COMMAND.
A COMMAND that cannot be run is reported on standard error; the exit code is 127, as of a shell.
Only the standard library, so that it stays small. It is a process of its own because code between
fork and exec may hang when there are threads.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
POLL_S = 0.2
TERMINATE_S = 5.0


def main() -> None:
    """Tie this process, check that the parent still runs, exec."""
    if sys.argv[1] == "--watch":
        engine, engine_fd, owner_fd = map(int, sys.argv[2:5])
        watch(engine, engine_fd, owner_fd, float(sys.argv[5]), sys.argv[6])
        return
    parent, grace_s, record, command = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
    if sys.platform == "linux":
        if float(grace_s):
            start_watcher(parent, grace_s, record)
        else:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the gateway has ended")
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell wanted
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        sys.exit(127)


def start_watcher(parent: int, grace_s: str, record: str) -> None:
    """Start the watcher of this process, which is about to become COMMAND.

    It is an orphaned grandchild, so that COMMAND has no child that it did not start.
    """
    if os.getppid() != parent:
        return
    me, owner = os.pidfd_open(os.getpid()), os.pidfd_open(parent)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(me)
        os.close(owner)
        return
    if os.fork():
        os._exit(0)
    for number in (me, owner):
        os.set_inheritable(number, True)
    line = [sys.executable, "-S", "-E", __file__, "--watch"]
    line += [str(os.getpgid(0)), str(me), str(owner), grace_s, record]
    os.execv(sys.executable, line)  # noqa: S606 - no shell wanted


def watch(engine: int, engine_fd: int, owner_fd: int, grace_s: float, record: str) -> None:
    """Return once the engine has ended, by itself or ended by this watcher."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_IGN
        )  # they are meant for the engine, which is in this group
    dead = 0
    while not wait_for_either(engine_fd, owner_fd):
        os.close(owner_fd)
        next_owner = wait_for_owner(engine_fd, record, grace_s, dead)
        if next_owner is None:
            end(engine, engine_fd, record)
            return
        dead, owner_fd = next_owner


def wait_for_either(engine_fd: int, owner_fd: int) -> bool:
    """Wait until the engine or its owner has ended; whether the engine has."""
    poll = select.poll()
    poll.register(engine_fd, select.POLLIN)
    poll.register(owner_fd, select.POLLIN)
    return engine_fd in (number for number, _ in poll.poll())


def wait_for_owner(
    engine_fd: int, record: str, grace_s: float, dead: int
) -> "tuple[int, int] | None":
    """The next owner and its descriptor; None without one in time, or if the engine has ended."""
    over = time.monotonic() + grace_s
    while (left_s := over - time.monotonic()) > 0:
        try:
            with open(record) as file:  # noqa: PTH123 - small
                owner = int(json.load(file)["owner"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            owner = dead
        if owner != dead:
            try:
                return owner, os.pidfd_open(owner)
            except OSError:
                dead = owner
        poll = select.poll()
        poll.register(engine_fd, select.POLLIN)
        if poll.poll(min(POLL_S, left_s) * 1000):
            return None
    return None


def end(engine: int, engine_fd: int, record: str) -> None:
    """SIGTERM, and SIGKILL after ``TERMINATE_S``, to the engine's whole group."""
    with contextlib.suppress(OSError):
        os.unlink(record)  # noqa: PTH108 - small
    poll = select.poll()
    poll.register(engine_fd, select.POLLIN)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(engine, number)
        except ProcessLookupError:
            return
        poll.poll(TERMINATE_S * 1000)


main()
