"""The local stack: its servers, and the ports that they have or will take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from sage_flink.common.errors import StackError
from sage_flink.platform.doctor.check import Check
from sage_flink.platform.stack.ports import DEFAULT_PORTS, choose
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.stack_json import saved_ports
from sage_flink.platform.stack.status import ServerStatus, processes, status

STARTING_S = 180.0


@dataclass(frozen=True, slots=True)
class Listener:
    """The program that listens on a port. ``is_ours``: it belongs to this stack."""

    program: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class StackFacts:
    """The servers, the ports of the last or first start, and who listens on which port."""

    servers: tuple[ServerStatus, ...]
    ports: Mapping[str, int]
    listeners: Mapping[int, Listener]


def read_stack(home: Path) -> StackFacts:
    """The facts of the stack in ``home``, whether it was started or not."""
    ports = {**DEFAULT_PORTS, **saved_ports(StackDirectory.at(home))}
    ours = {process.pid for process in processes(home)}
    return StackFacts(tuple(status(home)), ports, _listeners(ours))


def check_stack(facts: StackFacts) -> Iterator[Check]:
    """The checks of the servers and their ports."""
    running = {server.name for server in facts.servers if server.state != "stopped"}
    if not running:
        yield Check("stack", "servers", "warning", "the stack is not running", "run `sage up`")
    else:
        yield from (_server(server) for server in facts.servers)
    yield from _ports(facts)


def _server(server: ServerStatus) -> Check:
    if server.state == "ready":
        found = f"ready for {server.uptime_s:.0f} s at {server.url or f'pid {server.pid}'}"
        return Check("stack", server.name, "ok", found)
    logs = f"`sage logs {server.name}`"
    if server.state == "stopped":
        return Check("stack", server.name, "warning", "stopped", "run `sage up`")
    if server.state == "starting" and server.uptime_s < STARTING_S:
        found = f"starting for {server.uptime_s:.0f} s"
        return Check("stack", server.name, "warning", found, f"wait, then see {logs}")
    found = f"{server.state}, up for {server.uptime_s:.0f} s and not ready"
    return Check("stack", server.name, "fault", found, server.hint or f"see {logs}")


def _ports(facts: StackFacts) -> Iterator[Check]:
    """A warning for each port of a foreign program; ``sage up`` takes another one there."""
    taken = {port: one for port, one in facts.listeners.items() if not one.is_ours}
    foreign = {name: taken[port] for name, port in facts.ports.items() if port in taken}
    try:
        others = choose(facts.ports, free=lambda port: port not in taken)
    except StackError as error:
        yield Check("ports", "free ports", "fault", str(error), "stop one of those programs")
        return
    for name, listener in foreign.items():
        found = f"{facts.ports[name]} is taken by {listener.program}"
        step = f"`sage up` takes {others[name]}; stop that program to keep the port"
        yield Check("ports", name, "warning", found, step)
    if not foreign:
        listed = f"{len(facts.ports)} ports are free or the stack's own"
        yield Check("ports", "ports", "ok", listed)


def _listeners(ours: set[int]) -> dict[int, Listener]:
    try:
        sockets = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS shows them to root only
        return {}
    found = {}
    for socket in sockets:
        if socket.status == psutil.CONN_LISTEN and socket.laddr:
            program = _program(socket.pid) if socket.pid else "another user's program"
            found[socket.laddr.port] = Listener(program, socket.pid in ours)
    return found


def _program(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"{process.name()} (pid {pid}, user {process.username()})"
    except psutil.Error:
        return f"pid {pid}"
