"""Separate local stack for drills, and the faults to inject into it.

It has its own stack directory, so that the user's running stack is safe: environments and servers
are links into the checkout's stack directory, ports are free ones, and its pool serves only mock
engines. It ends only processes with this stack's marks.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

from benchmark_sage.recovery.workload import DIM
from sage_flink.common.settings import sage_home
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.supervisor import Supervisor

HEALTH = {"interval_s": 0.5, "timeout_s": 1.0, "missed_max": 2, "backoff_first_s": 0.2}
#: How long an engine survives a killed gateway, and so also a failed drill.
GRACE_S = 15.0
RESTART_S = 240.0
#: Model -> kind, replicas, the engine's latency.
MODELS = {
    "mock-chat": ("chat", 1, "lognormal:30ms:0.5"),
    "mock-pair": ("chat", 2, "lognormal:30ms:0.5"),
    "mock-other": ("chat", 1, "constant:20ms"),
    "mock-embed": ("embedding", 1, "constant:5ms"),
    "minilm": ("embedding", 1, "constant:5ms"),  # in place of that of rag_ingest
}
DIMS = {"mock-embed": DIM, "minilm": 384}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The stack in ``home``; all servers are up except those that a fault has stopped."""

    home: Path

    def up(self, *servers: str, secured: bool | None = None) -> None:
        """Start the ``servers`` (default: all) that do not run, and wait until they are ready."""
        stack.up(self.home, only=frozenset(servers) or None, secured=secured, quiet=True)

    def down(self) -> None:
        """Stop the whole stack."""
        stack.down(self.home)

    def processes(self, server: str, words: Sequence[str] = ()) -> list[psutil.Process]:
        """The processes of ``server`` with all ``words`` in their command line."""
        found = stack.processes(self.home, server)
        return [process for process in found if _matches(process, words)]

    def kill(self, server: str, *words: str) -> None:
        """Kill -9 the processes of ``server`` with all ``words``; supervisord restarts them.

        Raises:
            LookupError: there is no such process.
        """
        processes = self.processes(server, words)
        if not processes:
            raise LookupError(f"no process of {server} with {words} in {self.home}")
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)

    def kill_taskmanager(self, rest: FlinkRest, job_id: str) -> None:
        """Kill -9 the TaskManager, and wait until the job runs again.

        Raises:
            TimeoutError: it does not.
        """
        before = rest.restarts(job_id)
        self.kill("taskmanager", "java")
        until(lambda: rest.restarts(job_id) > before, RESTART_S, "the job restarts")
        until(lambda: rest.all_tasks_running(job_id), RESTART_S, "the job runs again")

    @contextmanager
    def away(self, server: str) -> Iterator[None]:
        """Kill -9 ``server`` and keep it down during the block; it is ready again afterwards."""
        self.kill(server)
        Supervisor(StackDirectory.at(self.home)).stop([server], timeout_s=30)
        try:
            yield
        finally:
            self.up(server)

    @contextmanager
    def suspend(self, server: str, *words: str) -> Iterator[None]:
        """Suspend the processes of ``server`` with ``words`` by SIGSTOP during the block."""
        frozen = self.processes(server, words)
        for process in frozen:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in frozen:
                if process.is_running():
                    os.kill(process.pid, signal.SIGCONT)

    def control(self, model: str, **plan: str | float | bool) -> None:
        """Change the plan of the engines of ``model``; see the mock engine's ``/control``."""
        for process in self.processes("gateway", [self.journal(model).name]):
            line = process.cmdline()
            if line[0].endswith("mock-engine"):
                port = line[line.index("--port") + 1]
                httpx.post(f"http://127.0.0.1:{port}/control", json=plan).raise_for_status()

    @contextmanager
    def without_ledger(self) -> Iterator[None]:
        """Restart the gateway without its generation ledger, and with it after the block."""
        spec = self.home / "pool.yaml"
        original = spec.read_text()
        spec.write_text(original + "ledger: {store: 'off'}\n")
        try:
            self._restart("gateway")
            yield
        finally:
            spec.write_text(original)
            self._restart("gateway")

    def _restart(self, server: str) -> None:
        Supervisor(StackDirectory.at(self.home)).stop([server], timeout_s=30)
        self.up(server)

    def rss_mib(self, server: str) -> float:
        """Resident memory of all processes of ``server``."""
        return sum(_rss(process) for process in self.processes(server)) / 2**20

    def journal(self, model: str) -> Path:
        """The mock engine's log of finished generations, one request id a line."""
        return self.home / "logs" / f"{model}.journal"

    def generations(self, model: str) -> list[str]:
        """The request ids of all generations that ``model`` has finished, in order."""
        path = self.journal(model)
        return path.read_text().split() if path.exists() else []


def prepare(home: Path, installed: Path) -> Cluster:
    """A new, empty cluster in ``home``; ``installed`` is the stack directory created by setup.

    Stops the servers that a killed run has left running there.
    """
    if home.exists():
        stack.down(home)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for folder in ("venv", "lib"):
        (home / folder).symlink_to(installed / folder)
    cluster = Cluster(home)
    (home / "pool.yaml").write_text(yaml.safe_dump(pool(cluster)))
    return cluster


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A new, empty cluster that runs; ``SAGE_HOME`` points to it."""
    installed = sage_home()
    cluster = prepare(installed / "drills", installed)
    os.environ["SAGE_HOME"] = str(cluster.home)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
        os.environ["SAGE_HOME"] = str(installed)


def pool(cluster: Cluster) -> dict[str, object]:
    """The contents of ``pool.yaml``: the mock models."""
    return {
        "engine_grace_s": GRACE_S,
        "models": {
            name: {
                "engine": "mock",
                "kind": kind,
                "replicas": replicas,
                "concurrency": 1024,
                "timeout_s": 120,
                "health": HEALTH,
                "arguments": _arguments(name, latency, cluster.journal(name)),
                **({"dim": DIMS[name]} if kind == "embedding" else {}),
            }
            for name, (kind, replicas, latency) in MODELS.items()
        },
    }


def _arguments(model: str, latency: str, journal: Path) -> list[str]:
    dim = DIMS.get(model, DIM)
    return ["--latency", latency, "--dim", str(dim), "--journal", str(journal)]


def until(
    condition: Callable[[], bool], seconds: float, what: str, *, every_s: float = 0.1
) -> float:
    """Wait for ``condition`` and return the seconds that passed.

    Raises:
        TimeoutError: ``condition`` was not true within ``seconds``.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"waited {seconds:g} s: {what}")
        time.sleep(every_s)
    return time.monotonic() - began


def _matches(process: psutil.Process, words: Sequence[str]) -> bool:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return all(word in line for word in words)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
