"""Start and stop the stack: whole or in part, again or after any death, with nothing left over."""

import fcntl
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from sage_flink.common.errors import StackError
from sage_flink.platform import savepoints
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.progress import Board
from sage_flink.platform.stack.guard import end, marked, part_names
from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.part import Part
from sage_flink.platform.stack.parts import PARTS, select
from sage_flink.platform.stack.ports import choose, is_free, kept_ports, write_notes
from sage_flink.platform.stack.status import PartStatus, status
from sage_flink.platform.stack.supervise import Process, Supervisor

LOCK_TIMEOUT_S = 180.0
PORTS_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.2
DRAIN_TIMEOUT_S = 60.0
LIVES_MAX = 3
LOG_LINES_SHOWN = 12


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """No other ``up`` or ``down`` of this home meanwhile.

    Raises:
        StackError: another one did not finish in time.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with (home.run / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackError(
                        "another `sage up` or `sage down` is at work; wait for it, or end it"
                    ) from None
                time.sleep(POLL_S)
        yield


def up(
    home: Path,
    *,
    only: Collection[str] | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> list[PartStatus]:
    """Start the parts that do not run, wait until all of ``only`` (default: every part) are ready.

    Harmless when they are up. What this call started is stopped again when it fails or is
    interrupted.

    Raises:
        ConfigError: ``only`` names no part, or the path of ``home`` cannot be used.
        StackError: something that setup makes is missing, or a part died or was not ready in time.
    """
    place, names, console = Home.at(home), select(only), console or Console()
    place.make()
    key = place.key("gateway")
    new_key = "gateway" in names and not key.exists()
    with alone(place):
        start_parts(place, names, Board("sage up", names, console, quiet))
    if new_key and not quiet:
        console.out(f"API key of the gateway, shown once and kept in {key}:")
        console.out(key.read_text().strip(), highlight=False)
    return [part for part in status(home) if part.name in names]


def start_parts(home: Home, names: list[str], board: Board) -> None:
    """Bring ``names`` up; what was started here is stopped again on any failure or Ctrl-C."""
    supervisor = Supervisor(home)
    running = now_running(home, supervisor)
    ports = choose(kept_ports(home), ours=owned_ports(home, running))
    parts = [make(home, ports) for make in PARTS.values()]
    wanted = [part for part in parts if part.name in names]
    missing = [part for part in wanted if part.name not in running]
    for part in missing:
        part.prepare()
    for part in parts:
        part.folder.mkdir(parents=True, exist_ok=True)
    write_notes(home, ports)
    try:
        if (
            supervisor.alive()
        ):  # a part between two deaths could neither be started nor given a new port
            supervisor.stop([part.name for part in missing], timeout_s=STOP_TIMEOUT_S)
        supervisor.serve(parts)
        for part in missing:
            supervisor.start(part.name)
        wait_ready(home, supervisor, wanted, board)
    except BaseException:
        undo(home, supervisor, missing)
        raise


def now_supervised(supervisor: Supervisor) -> set[str]:
    """Names of the parts that run under supervision."""
    if not supervisor.alive():
        return set()
    return {name for name, process in supervisor.processes().items() if process.running}


def now_running(home: Home, supervisor: Supervisor) -> set[str]:
    """Names of the parts that run under supervision; what runs without it is ended first."""
    if supervisor.alive():
        return now_supervised(supervisor)
    end(marked({"SAGE_STACK": str(home.root)}))
    return set()


def owned_ports(home: Home, running: set[str]) -> list[str]:
    """Names of the ports that our own running parts hold."""
    kept = kept_ports(home)
    complete = choose(kept, ours=kept, free=lambda _: True)
    return [port for name in running for port in PARTS[name](home, complete).ports]


def wait_ready(home: Home, supervisor: Supervisor, parts: list[Part], board: Board) -> None:
    """Return when every part is ready; each has its own time.

    Raises:
        StackError: a part died again and again, or took too long.
    """
    pending = {part.name: part for part in parts}
    lives: dict[str, set[int]] = {part.name: set() for part in parts}
    started = time.monotonic()
    with board:
        while pending:
            processes, waited_s = supervisor.processes(), time.monotonic() - started
            for part in list(pending.values()):
                process = processes[part.name]
                lives[part.name].add(process.pid)
                if process.running and part.ready():
                    part.settle()
                    board.mark(part.name, "ready", part.url)
                    del pending[part.name]
                elif trouble := problem(part, process, lives[part.name], waited_s):
                    board.mark(part.name, "failed", trouble)
                    raise StackError(complaint(home, part, trouble))
                else:
                    board.mark(part.name, "working", process.state.lower())
            time.sleep(POLL_S if pending else 0)


def problem(part: Part, process: Process, lives: set[int], waited_s: float) -> str:
    """Why a part that is not ready should be given up; empty while there is hope."""
    if process.state == "FATAL" or len(lives - {0}) > LIVES_MAX:
        return f"died {max(1, len(lives - {0}))} times while starting"
    if waited_s > part.ready_s:
        return f"not ready after {part.ready_s:.0f} s"
    return ""


def complaint(home: Home, part: Part, trouble: str) -> str:
    """The message for a part that did not come up: what, its last words, the next step."""
    log = home.log(part.name)
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:] if log.exists() else []
    words = "\n".join(f"    {line[:240]}" for line in lines)
    return (
        f"{part.name} {trouble}. Its last words:\n{words or '    (none)'}\n"
        f"  Next: read {log}, mend what it names, run `sage up` again. "
        f"If it says that an address is in use, `sage up` again chooses another port."
    )


def undo(home: Home, supervisor: Supervisor, started: list[Part]) -> None:
    """Stop what a failed start began; everything, when nothing else runs."""
    if not supervisor.alive():
        end(marked({"SAGE_STACK": str(home.root)}))
        return
    names = {part.name for part in started}
    if now_running(home, supervisor) - names:
        supervisor.stop(names, timeout_s=STOP_TIMEOUT_S)
    else:
        stop_all(home, supervisor)


def stop_all(home: Home, supervisor: Supervisor) -> set[str]:
    """End every process of the stack and supervisord; the names of the parts that ran."""
    ran: set[str] = set()
    if supervisor.alive():
        ran = now_supervised(supervisor)
        try:
            supervisor.stop(PARTS, timeout_s=STOP_TIMEOUT_S)
        finally:
            supervisor.call("shutdown")
    deadline = time.monotonic() + PORTS_TIMEOUT_S
    while supervisor.alive() and time.monotonic() < deadline:
        time.sleep(POLL_S / 4)
    left = marked({"SAGE_STACK": str(home.root)})
    ran |= part_names(left)
    end(left)
    home.socket.unlink(missing_ok=True)
    if home.socket.parent != home.run:
        shutil.rmtree(home.socket.parent, ignore_errors=True)
        (home.run / "socket").unlink(missing_ok=True)
    return ran


def drain_jobs(flink_url: str, console: Console) -> None:
    """Let every running job write what it has read: a new one goes on from committed offsets.

    A job that cannot (it fails over and over, say) is named; it goes on from its last checkpoint at
    the next ``up``, as all jobs do after a crash of the machine.
    """
    with FlinkRest(flink_url) as rest:
        try:
            running = [job for job in rest.jobs() if job.state == "RUNNING"]
        except StackError:
            return  # no JobManager that answers, no job that could be drained
        for job in running:
            try:
                with console.status(f"job {job.name} writes what it has read"):
                    savepoints.drain(rest, job, timeout_s=DRAIN_TIMEOUT_S)
            except StackError as error:
                console.print(
                    f"job {job.name} was not drained and goes on at the next `sage up`: {error}",
                    markup=False,
                )


def down(home: Path, *, console: Console | None = None) -> list[str]:
    """Stop everything and make sure of it; the names of the parts that ran. Harmless when down.

    Jobs are drained first.

    Raises:
        StackError: a process or a port of the stack is still there.
    """
    place = Home.at(home)
    if not place.run.exists():
        return []
    with alone(place):
        kept = kept_ports(place)
        supervisor = Supervisor(place)
        if "jobmanager" in now_supervised(supervisor):
            drain_jobs(PARTS["jobmanager"](place, kept).url, console or Console())
        ran = stop_all(place, supervisor)
        owned = {port for name in ran for port in PARTS[name](place, kept).ports}
        deadline = time.monotonic() + PORTS_TIMEOUT_S
        while held := [kept[name] for name in sorted(owned) if not is_free(kept[name])]:
            if time.monotonic() > deadline:
                raise StackError(
                    f"after stopping, something listens on {held}; see `ss -ltnp`, then `sage down`"
                )
            time.sleep(POLL_S)
        if left := marked({"SAGE_STACK": str(place.root)}):
            pids = [process.pid for process in left]
            raise StackError(f"processes {pids} did not end; end them by id, then `sage down`")
    return [name for name in PARTS if name in ran]
