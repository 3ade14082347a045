"""A proxy under test as a process of its own, on a core of its own: started, measured, ended.

The peers, one a file in :mod:`benchmark_sage.peers`, say what to start; so does sage.
"""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from sage_flink.common import ConfigError, StackError
from sage_flink.common.settings import sage_cache

START_TIMEOUT_S, END_TIMEOUT_S = 180.0, 10.0
#: What the programs of engines have in their command lines, and how those name the model.
ENGINES = {"mock-engine": "--model", "serve_llamacpp.py": "--alias"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """One that answers at ``url`` (without ``/v1``) and wants ``key``.

    ``settings``: how it was set up, for the result file. ``model``: the name to ask for.
    """

    url: str
    key: str
    settings: dict[str, Any]
    process: psutil.Process | None = None
    model: str = "mock"

    def family(self, *, engines: bool = False) -> list[psutil.Process]:
        """Its processes; or the engines that it has started, which are not counted as its own."""
        if self.process is None:
            return []
        found = []
        for one in [self.process, *self.process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                if (_engine(one.cmdline()) is not None) == engines:
                    found.append(one)
        return found

    def cpu_s(self) -> float:
        """Processor seconds that its processes have used so far."""
        times = [one.cpu_times() for one in self.family()]
        return sum(t.user + t.system for t in times)

    def rss_mib(self) -> float:
        """What its processes hold in memory now."""
        return sum(one.memory_info().rss for one in self.family()) / 2**20

    def engines(self, model: str | None = None) -> list[str]:
        """The addresses of the engines that it has started; of ``model`` where one is named."""
        told = [_engine(one.cmdline()) for one in self.family(engines=True)]
        return [f"http://127.0.0.1:{one[0]}" for one in told if one and model in (None, one[1])]


def _engine(line: Sequence[str]) -> tuple[str, str] | None:
    """The port and the model of the engine with this command line; None where it is none.

    >>> _engine(["/x/mock-engine", "--port", "70", "--model", "m"])
    ('70', 'm')
    """
    for program, name in ENGINES.items():
        if any(word.endswith(program) for word in line[:2]):
            return line[line.index("--port") + 1], line[line.index(name) + 1]
    return None


#: A peer: given the addresses of engines, a folder for its files and a core to run on, it runs.
Peer = Callable[[Sequence[str], Path, int], AbstractContextManager[Proxy]]


@contextmanager
def started(
    command: Sequence[str],
    *,
    core: int | None,
    log: Path,
    ready: str,
    env: Mapping[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """The process, once ``ready`` answers 200; ended with the block.

    Raises:
        StackError: it ended, or was not ready in time; what it said last is told.
    """
    with log.open("w") as said:
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        process = subprocess.Popen(
            [*pinned, *command], stdout=said, stderr=said, env={**os.environ, **(env or {})}
        )
    try:
        _wait(process, ready, log)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], ready: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            why = "ended" if ended else f"was not ready within {START_TIMEOUT_S:g} s"
            raise StackError(f"{log.stem} {why}: {log.read_text()[-500:]}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(ready, timeout=2).status_code == 200:
                return
        time.sleep(0.1)


def environment(name: str) -> Path:
    """The folder with the commands of a peer's environment.

    Raises:
        ConfigError: there is none.
    """
    folder = sage_cache() / "venv" / f"peer-{name}"
    if not (folder / ".stamp").exists():
        raise ConfigError(f"no environment {folder}; run `bash infra/peers.sh`")
    return folder / "bin"


def version(commands: Path, package: str) -> str:
    """The version of a package in the environment of ``commands``."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    told = subprocess.run(
        [commands / "python", "-c", code], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def cores() -> tuple[int, int]:
    """One for the proxy, one for load and engine.

    Raises:
        ConfigError: there is only one.
    """
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise ConfigError("this benchmark needs two processors: one is the proxy's alone")
    return found[0], found[-1]


def pin(process: psutil.Process, core: int) -> None:
    """All threads of a process that runs already onto this core."""
    line = ["taskset", "-a", "-c", "-p", str(core), str(process.pid)]
    subprocess.run(line, check=True, capture_output=True)
