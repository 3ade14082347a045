"""Start and stop of the local stack, complete or by server.

Both can be repeated, also after any crash; a stop leaves no process and no open port.
"""

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
from sage_flink.platform.progress import ProgressTable
from sage_flink.platform.stack import mode
from sage_flink.platform.stack.flink_launch import keep_class_archive
from sage_flink.platform.stack.ports import PortClaims, choose, is_free
from sage_flink.platform.stack.process_guard import end_processes, find_processes, server_names
from sage_flink.platform.stack.server import Server
from sage_flink.platform.stack.servers import SERVERS, select
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.stack_json import saved_ports, write_stack_json
from sage_flink.platform.stack.status import ServerStatus, serves, status
from sage_flink.platform.stack.supervisor import SupervisedProcess, Supervisor

LOCK_TIMEOUT_S = 180.0
PORTS_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.2
DRAIN_TIMEOUT_S = 60.0
STARTS_MAX = 3
LOG_LINES_SHOWN = 12


@contextmanager
def exclusive_lock(directory: StackDirectory) -> Iterator[None]:
    """Exclude any other ``up`` or ``down`` of this directory.

    Raises:
        StackError: another one did not finish in time.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with (directory.run / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackError(
                        "another `sage up` or `sage down` is running; wait for it, or end it"
                    ) from None
                time.sleep(POLL_S)
        yield


def up(
    home: Path,
    *,
    only: Collection[str] | None = None,
    secured: bool | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> list[ServerStatus]:
    """Start the servers of ``only`` (default: all) that do not run, and wait until all are ready.

    Does not change servers that run. If the call fails or is interrupted, it stops the servers that
    it has started. ``secured``: whether they demand TLS and a secret; the default is as before,
    and open for a new stack. Servers that run, and jobs that are to continue, prevent a change.

    Raises:
        ConfigError: ``only`` names an unknown server, the path of ``home`` cannot be used, or
            ``secured`` cannot change now.
        StackError: a file that setup creates is missing, or a server died or was not ready in time.
    """
    directory, names, console = StackDirectory.at(home), select(only), console or Console()
    directory.create()
    key = directory.key("gateway")
    new_key = "gateway" in names and not key.exists()
    with exclusive_lock(directory):
        start_servers(directory, names, secured, ProgressTable("sage up", names, console, quiet))
    if new_key and not quiet:
        console.out(f"the API key of the gateway is in {key}", highlight=False)
    return [server for server in status(home) if server.name in names]


def start_servers(
    directory: StackDirectory, names: list[str], secured: bool | None, progress: ProgressTable
) -> None:
    """Start ``names`` and wait for them; on any failure or Ctrl-C stop what was started here."""
    supervisor = Supervisor(directory)
    running = running_servers(directory, supervisor)
    with PortClaims() as claims:
        owned = owned_ports(directory, running)
        ports = choose(saved_ports(directory), ours=owned, free=claims.take)
        now = mode.prepare(directory, secured, running)
        if now.is_renewed and running and not progress.quiet:
            progress.console.out(mode.RENEWED, highlight=False)
        servers = [make(directory, ports, now.secured) for make in SERVERS.values()]
        wanted = [server for server in servers if server.name in names]
        missing = [server for server in wanted if server.name not in running]
        for server in missing:
            server.prepare()
        for server in servers:
            server.folder.mkdir(parents=True, exist_ok=True)
        write_stack_json(directory, ports, secured=now.secured)
        try:
            if supervisor.alive():
                # A server between two restarts by supervisord can neither start nor get a new port.
                supervisor.stop([server.name for server in missing], timeout_s=STOP_TIMEOUT_S)
            supervisor.serve(servers)
            for server in missing:
                supervisor.start(server.name)
            wait_ready(directory, supervisor, wanted, progress)
        except BaseException:
            stop_started(directory, supervisor, missing)
            raise


def supervised_servers(supervisor: Supervisor) -> set[str]:
    """Names of the servers that run under supervision."""
    if not supervisor.alive():
        return set()
    return {name for name, process in supervisor.processes().items() if process.running}


def running_servers(directory: StackDirectory, supervisor: Supervisor) -> set[str]:
    """Names of the servers that run under supervision; ends servers that run without it."""
    if supervisor.alive():
        return supervised_servers(supervisor)
    end_processes(find_processes({"SAGE_STACK": directory.mark}))
    return set()


def owned_ports(directory: StackDirectory, running: set[str]) -> list[str]:
    """Names of the ports of our own running servers."""
    saved = saved_ports(directory)
    complete = choose(saved, ours=saved, free=lambda _: True)
    return [port for name in running for port in SERVERS[name](directory, complete).ports]


def wait_ready(
    directory: StackDirectory,
    supervisor: Supervisor,
    servers: list[Server],
    progress: ProgressTable,
) -> None:
    """Return when every server is ready; each has its own timeout.

    Raises:
        StackError: a server died repeatedly, or was not ready in time.
    """
    pending = {server.name: server for server in servers}
    pids: dict[str, set[int]] = {server.name: set() for server in servers}
    ports, started = saved_ports(directory), time.monotonic()
    with progress:
        while pending:
            processes, waited_s = supervisor.processes(), time.monotonic() - started
            for server in list(pending.values()):
                process = processes[server.name]
                pids[server.name].add(process.pid)
                if process.running and serves(server, process.pid, ports):
                    server.after_ready()
                    progress.mark(server.name, "ready", server.url)
                    del pending[server.name]
                elif reason := failure_reason(server, process, pids[server.name], waited_s):
                    progress.mark(server.name, "failed", reason)
                    raise StackError(failure_message(directory, server, reason))
                else:
                    progress.mark(server.name, "working", process.state.lower())
            time.sleep(POLL_S if pending else 0)


def failure_reason(
    server: Server, process: SupervisedProcess, pids: set[int], waited_s: float
) -> str:
    """Why the start of a server has failed; empty while it may still become ready."""
    if process.state == "FATAL" or len(pids - {0}) > STARTS_MAX:
        return f"died {max(1, len(pids - {0}))} times while starting"
    if waited_s > server.ready_s:
        return f"not ready after {server.ready_s:.0f} s"
    return ""


def failure_message(directory: StackDirectory, server: Server, reason: str) -> str:
    """The message for a server that did not start: reason, last log lines, next step."""
    log = directory.log(server.name)
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:] if log.exists() else []
    tail = "\n".join(f"    {line[:240]}" for line in lines)
    return (
        f"{server.name} {reason}. The end of its log:\n{tail or '    (empty)'}\n"
        f"  Next: read {log}, fix the cause, run `sage up` again. "
        f"If an address is in use, `sage up` again chooses another port."
    )


def stop_started(directory: StackDirectory, supervisor: Supervisor, started: list[Server]) -> None:
    """Stop the servers of a failed start, and the whole stack if no other server runs."""
    if not supervisor.alive():
        end_processes(find_processes({"SAGE_STACK": directory.mark}))
        return
    names = {server.name for server in started}
    if running_servers(directory, supervisor) - names:
        supervisor.stop(names, timeout_s=STOP_TIMEOUT_S)
    else:
        stop_all(directory, supervisor)


def stop_all(directory: StackDirectory, supervisor: Supervisor) -> set[str]:
    """End every process of the stack and supervisord; return the names of the servers that ran."""
    ran: set[str] = set()
    if supervisor.alive():
        ran = supervised_servers(supervisor)
        try:
            supervisor.stop(SERVERS, timeout_s=STOP_TIMEOUT_S)
        finally:
            supervisor.call("shutdown")
    deadline = time.monotonic() + PORTS_TIMEOUT_S
    while supervisor.alive() and time.monotonic() < deadline:
        time.sleep(POLL_S / 4)
    remaining = find_processes({"SAGE_STACK": directory.mark})
    ran |= server_names(remaining)
    end_processes(remaining)
    keep_class_archive(directory)
    directory.socket.unlink(missing_ok=True)
    if directory.socket.parent != directory.run:
        shutil.rmtree(directory.socket.parent, ignore_errors=True)
        (directory.run / "socket").unlink(missing_ok=True)
    return ran


def drain_jobs(flink_url: str, console: Console) -> None:
    """Drain every running job, so that a new one continues from the committed offsets.

    Prints the name of a job that cannot be drained (because it fails repeatedly, for example); it
    continues from its last checkpoint at the next ``up``, like all jobs after a machine crash.
    """
    with FlinkRest(flink_url) as rest:
        try:
            running = [job for job in rest.jobs() if job.state == "RUNNING"]
        except StackError:
            return  # without a JobManager no job can be drained
        for job in running:
            try:
                with console.status(f"draining job {job.name}"):
                    savepoints.drain(rest, job, timeout_s=DRAIN_TIMEOUT_S)
            except StackError as error:
                console.print(
                    f"job {job.name} was not drained; it continues at the next `sage up`: {error}",
                    markup=False,
                )


def down(home: Path, *, console: Console | None = None) -> list[str]:
    """Stop all servers and check it; return the names of the servers that ran.

    Drains the jobs first. Does nothing when the stack is down.

    Raises:
        StackError: a process or an open port of the stack remains.
    """
    directory = StackDirectory.at(home)
    if not directory.run.exists():
        return []
    with exclusive_lock(directory):
        ports = saved_ports(directory)
        supervisor = Supervisor(directory)
        if "jobmanager" in supervised_servers(supervisor):
            drain_jobs(SERVERS["jobmanager"](directory, ports).url, console or Console())
        ran = stop_all(directory, supervisor)
        owned = {port for name in ran for port in SERVERS[name](directory, ports).ports}
        deadline = time.monotonic() + PORTS_TIMEOUT_S
        while taken := [ports[name] for name in sorted(owned) if not is_free(ports[name])]:
            if time.monotonic() > deadline:
                raise StackError(
                    f"after the stop a process listens on {taken}; see `ss -ltnp`, then `sage down`"
                )
            time.sleep(POLL_S)
        if remaining := find_processes({"SAGE_STACK": directory.mark}):
            pids = [process.pid for process in remaining]
            raise StackError(f"processes {pids} did not end; end them by id, then `sage down`")
    return [name for name in SERVERS if name in ran]
