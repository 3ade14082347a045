"""A local stack of its own that may be broken, and the ways to break it.

In a home of its own, so that nobody's running stack is hurt: the environments and servers are
linked from the checkout's home, ports are chosen free, and its pool serves mock engines only. Ends
no process but those that carry the stack's own marks.
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
from sage_flink.platform import stack
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.supervisor import Supervisor

HEALTH = {"interval_s": 0.5, "timeout_s": 1.0, "missed_max": 2, "backoff_first_s": 0.2}
#: So long an engine outlives a gateway that was killed; a drill that fails leaves none for longer.
GRACE_S = 15.0
#: Model -> kind, replicas, the engine's latency.
MODELS = {
    "mock-chat": ("chat", 1, "lognormal:30ms:0.5"),
    "mock-pair": ("chat", 2, "lognormal:30ms:0.5"),
    "mock-other": ("chat", 1, "constant:20ms"),
    "mock-embed": ("embedding", 1, "constant:5ms"),
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The stack in ``home``, with every part up unless a fault says otherwise."""

    home: Path

    def up(self, *parts: str) -> None:
        """Start what does not run, of ``parts`` or of all, and wait until it is ready."""
        stack.up(self.home, only=frozenset(parts) or None, quiet=True)

    def down(self) -> None:
        """Stop everything."""
        stack.down(self.home)

    def processes(self, part: str, words: Sequence[str] = ()) -> list[psutil.Process]:
        """The processes of ``part`` whose command line holds all ``words``."""
        found = stack.processes(self.home, part)
        return [process for process in found if _says(process, words)]

    def kill(self, part: str, *words: str) -> None:
        """SIGKILL to the processes of ``part`` whose command line holds ``words``; it is restarted.

        Raises:
            LookupError: there is none.
        """
        doomed = self.processes(part, words)
        if not doomed:
            raise LookupError(f"no process of {part} with {words} in {self.home}")
        for process in doomed:
            os.kill(process.pid, signal.SIGKILL)

    @contextmanager
    def away(self, part: str) -> Iterator[None]:
        """``part`` killed with -9 and kept down while the block runs; up and ready after it."""
        self.kill(part)
        Supervisor(StackDirectory.at(self.home)).stop([part], timeout_s=30)
        try:
            yield
        finally:
            self.up(part)

    @contextmanager
    def stopped(self, part: str, *words: str) -> Iterator[None]:
        """Processes of ``part`` with ``words`` frozen by SIGSTOP while the block runs."""
        frozen = self.processes(part, words)
        for process in frozen:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in frozen:
                if process.is_running():
                    os.kill(process.pid, signal.SIGCONT)

    def control(self, model: str, **plan: str | float | bool) -> None:
        """Change the plan of the engines of ``model``, as the mock engine's ``/control`` has it."""
        for process in self.processes("gateway", [self.journal(model).name]):
            line = process.cmdline()
            if line[0].endswith("mock-engine"):
                port = line[line.index("--port") + 1]
                httpx.post(f"http://127.0.0.1:{port}/control", json=plan).raise_for_status()

    @contextmanager
    def without_ledger(self) -> Iterator[None]:
        """The gateway restarted without its ledger of generations, and with it after the block."""
        spec = self.home / "pool.yaml"
        usual = spec.read_text()
        spec.write_text(usual + "ledger: {store: 'off'}\n")
        try:
            self._restart("gateway")
            yield
        finally:
            spec.write_text(usual)
            self._restart("gateway")

    def _restart(self, part: str) -> None:
        Supervisor(StackDirectory.at(self.home)).stop([part], timeout_s=30)
        self.up(part)

    def rss_mib(self, part: str) -> float:
        """Resident memory of all processes of ``part``."""
        return sum(_rss(process) for process in self.processes(part)) / 2**20

    def journal(self, model: str) -> Path:
        """Where the mock engine notes every finished generation, one request id a line."""
        return self.home / "logs" / f"{model}.journal"

    def generations(self, model: str) -> list[str]:
        """The request ids of all generations that ``model`` has finished, in order."""
        path = self.journal(model)
        return path.read_text().split() if path.exists() else []


def prepare(home: Path, installed: Path) -> Cluster:
    """A new, empty cluster in ``home``; ``installed`` is the home that setup has made.

    What a killed run left running there is stopped.
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


def pool(cluster: Cluster) -> dict[str, object]:
    """The mock models, as ``pool.yaml`` has them."""
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
                "arguments": _arguments(latency, cluster.journal(name)),
                **({"dim": DIM} if kind == "embedding" else {}),
            }
            for name, (kind, replicas, latency) in MODELS.items()
        },
    }


def _arguments(latency: str, journal: Path) -> list[str]:
    return ["--latency", latency, "--dim", str(DIM), "--journal", str(journal)]


def until(
    condition: Callable[[], bool], seconds: float, what: str, *, every_s: float = 0.1
) -> float:
    """Seconds until ``condition`` held.

    Raises:
        TimeoutError: it did not within ``seconds``.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"waited {seconds:g} s: {what}")
        time.sleep(every_s)
    return time.monotonic() - began


def _says(process: psutil.Process, words: Sequence[str]) -> bool:
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
