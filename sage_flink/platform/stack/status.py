"""What runs now: one value a part, for people and for tests."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from sage_flink.common.errors import ConfigError
from sage_flink.platform.stack.guard import marked, part_names
from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.part import Part
from sage_flink.platform.stack.parts import PARTS
from sage_flink.platform.stack.ports import USUAL, kept_ports
from sage_flink.platform.stack.supervise import Process, Supervisor

State = Literal["stopped", "starting", "ready", "restarting", "failed"]
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One server. ``rss_mib`` counts its children too; ``hint`` is the next step, or empty."""

    name: str
    state: State
    pid: int | None
    ports: tuple[int, ...]
    url: str
    rss_mib: float
    uptime_s: float
    log: Path
    hint: str


def rss_mib(pid: int) -> float:
    """Resident memory of ``pid`` and all its children; 0 when it is gone."""
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
            continue  # ended meanwhile
    return total / MIB


def judge(process: Process | None, ready: bool, orphaned: bool) -> tuple[State, str]:
    """The state and the next step, from what supervisord says and what the server answers."""
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
            return "restarting", f"dies at start ({process.word}): `sage logs {process.name}`"
        case "FATAL" | "UNKNOWN":
            return (
                "failed",
                f"given up ({process.word}): `sage logs {process.name}`, then `sage up`",
            )
        case "EXITED":
            return "restarting", f"ended by itself: `sage logs {process.name}`"
    return "stopped", ""


def describe(
    home: Home, part: Part, ports: dict[str, int], process: Process | None, orphans: set[str]
) -> PartStatus:
    """The status of one part; asks the server whether it is ready when it runs."""
    running = process is not None and process.running
    state, hint = judge(process, running and part.ready(), part.name in orphans)
    pid = process.pid if process is not None and running else None
    return PartStatus(
        name=part.name,
        state=state,
        pid=pid,
        ports=tuple(ports[name] for name in part.ports),
        url=part.url,
        rss_mib=rss_mib(pid) if pid else 0.0,
        uptime_s=max(0.0, time.time() - process.started_s)
        if process is not None and running
        else 0.0,
        log=home.log(part.name),
        hint=hint,
    )


def status(home: Path) -> list[PartStatus]:
    """Every part of the stack in ``home``, running or not; takes at most a few seconds."""
    place = Home.at(home)
    supervisor = Supervisor(place)
    ports = {**USUAL, **kept_ports(place)}
    alive = supervisor.alive()
    processes = supervisor.processes() if alive else {}
    orphans = set() if alive else part_names(marked({"SAGE_STACK": str(place.root)}))
    parts = [make(place, ports) for make in PARTS.values()]
    return [describe(place, part, ports, processes.get(part.name), orphans) for part in parts]


def address(home: Path, name: str) -> str:
    """The address of one part, whether it runs or not."""
    place = Home.at(home)
    return PARTS[name](place, {**USUAL, **kept_ports(place)}).url


def processes(home: Path, part: str = "") -> list[psutil.Process]:
    """The processes of one part, or of the whole stack, their children included."""
    marks = {"SAGE_STACK": str(Home.at(home).root)}
    return marked({**marks, "SAGE_PART": part} if part else marks)


def log_path(home: Path, name: str) -> Path:
    """The log of one part, or of ``supervisord``.

    Raises:
        ConfigError: no such part, or it has not run yet.
    """
    if name not in PARTS and name != "supervisord":
        raise ConfigError(f"no log for {name!r}: there are {', '.join(PARTS)} and supervisord")
    path = Home.at(home).log(name)
    if not path.exists():
        raise ConfigError(f"{path} is not there yet; run `sage up`")
    return path
