"""Status of the local stack: one value for each server."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from sage_flink.common.errors import ConfigError
from sage_flink.platform.stack import mode
from sage_flink.platform.stack.ports import DEFAULT_PORTS, Ports
from sage_flink.platform.stack.process_guard import find_processes, server_names
from sage_flink.platform.stack.server import Server
from sage_flink.platform.stack.servers import SERVERS
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.stack_json import is_secured, saved_ports
from sage_flink.platform.stack.supervisor import SupervisedProcess, Supervisor

State = Literal["stopped", "starting", "ready", "restarting", "failed"]
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """Status of one server.

    ``rss_mib`` includes its child processes; ``hint`` is the next step for the user, or empty;
    ``secured`` is whether it demands TLS and a secret.
    """

    name: str
    state: State
    pid: int | None
    ports: tuple[int, ...]
    url: str
    rss_mib: float
    uptime_s: float
    log: Path
    hint: str
    secured: bool = False


def rss_mib(pid: int) -> float:
    """Resident memory of ``pid`` and all its children; 0 after it has ended."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue  # it has ended
    return total / MIB


def serves(server: Server, pid: int, ports: Ports) -> bool:
    """Whether ``server`` accepts work, and runs as ``pid`` or a child of it.

    The probe alone cannot tell: another stack's server that took the port first answers as well.
    """
    return server.ready() and (not server.ports or _listens(pid, ports[server.ports[0]]))


def _listens(pid: int, port: int) -> bool:
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        sockets = [socket for member in family for socket in member.net_connections(kind="tcp")]
    except psutil.Error:
        return False  # it has just ended
    listening = (one for one in sockets if one.status == psutil.CONN_LISTEN and one.laddr)
    return any(one.laddr.port == port for one in listening)


def server_state(
    process: SupervisedProcess | None, ready: bool, orphaned: bool
) -> tuple[State, str]:
    """The state and the next step, from supervisord's process state and the readiness probe."""
    if process is None:
        return (
            ("failed", "runs without its supervisor: `sage down`, then `sage up`")
            if orphaned
            else ("stopped", "")
        )
    if process.running:
        return ("ready", "") if ready else ("starting", "")
    match process.state:
        case "BACKOFF":
            return "restarting", f"dies at start ({process.message}): `sage logs {process.name}`"
        case "FATAL" | "UNKNOWN":
            return (
                "failed",
                f"restarts exhausted ({process.message}): `sage logs {process.name}`, "
                "then `sage up`",
            )
        case "EXITED":
            return "restarting", f"exited: `sage logs {process.name}`"
    return "stopped", ""


def server_status(
    directory: StackDirectory,
    server: Server,
    ports: dict[str, int],
    process: SupervisedProcess | None,
    orphans: set[str],
) -> ServerStatus:
    """The status of one server; probes a running server for readiness."""
    running = process is not None and process.running
    pid = process.pid if process is not None and running else None
    ready = pid is not None and serves(server, pid, ports)
    state, hint = server_state(process, ready, server.name in orphans)
    return ServerStatus(
        name=server.name,
        state=state,
        pid=pid,
        ports=tuple(ports[name] for name in server.ports),
        url=server.url,
        rss_mib=rss_mib(pid) if pid else 0.0,
        uptime_s=max(0.0, time.time() - process.started_s)
        if process is not None and running
        else 0.0,
        log=directory.log(server.name),
        hint=hint,
        secured=server.secured,
    )


def status(home: Path) -> list[ServerStatus]:
    """Every server of the stack in ``home``, running or not; takes at most a few seconds."""
    directory = StackDirectory.at(home)
    supervisor = Supervisor(directory)
    ports = {**DEFAULT_PORTS, **saved_ports(directory)}
    alive = supervisor.alive()
    processes = supervisor.processes() if alive else {}
    orphans = set() if alive else server_names(find_processes({"SAGE_STACK": directory.mark}))
    secured = is_secured(directory)
    servers = [make(directory, ports, secured) for make in SERVERS.values()]
    return [
        server_status(directory, server, ports, processes.get(server.name), orphans)
        for server in servers
    ]


def address(home: Path, name: str) -> str:
    """The address of one server, whether it runs or not."""
    directory = StackDirectory.at(home)
    ports = {**DEFAULT_PORTS, **saved_ports(directory)}
    return SERVERS[name](directory, ports, is_secured(directory)).url


def security(home: Path) -> str:
    """The protection of a secured stack in a sentence; empty for an open one."""
    directory = StackDirectory.at(home)
    if not is_secured(directory):
        return ""
    servers = [make(directory, DEFAULT_PORTS, True) for make in SERVERS.values()]
    return mode.summary(directory, [server.name for server in servers if server.secured])


def processes(home: Path, server: str = "") -> list[psutil.Process]:
    """The processes of one server, or of the whole stack, their children included."""
    marks = {"SAGE_STACK": StackDirectory.at(home).mark}
    return find_processes({**marks, "SAGE_SERVER": server} if server else marks)


def log_path(home: Path, name: str) -> Path:
    """The log of one server, or of ``supervisord``.

    Raises:
        ConfigError: no such server, or it has not run yet.
    """
    if name not in SERVERS and name != "supervisord":
        raise ConfigError(f"no log for {name!r}: the logs are {', '.join(SERVERS)} and supervisord")
    path = StackDirectory.at(home).log(name)
    if not path.exists():
        raise ConfigError(f"{path} does not exist yet; run `sage up`")
    return path
