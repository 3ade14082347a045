"""Proxies under test: each runs as a separate process on its own core and is measured there.

The modules of :mod:`benchmark_sage.peers`, one per peer and one for sage, define their commands.
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
#: Program of an engine in its command line -> its option for the model.
ENGINES = {"mock-engine": "--model", "serve_llamacpp.py": "--alias"}


@dataclass(frozen=True, slots=True)
class ProxyUnderTest:
    """A running proxy with its address (without ``/v1``) and key.

    ``settings``: its configuration, for the result file. ``model``: the model to request.
    """

    url: str
    key: str
    settings: dict[str, Any]
    process: psutil.Process | None = None
    model: str = "mock"

    def family(self, *, engines: bool = False) -> list[psutil.Process]:
        """Its processes without the engines that it has started, or only those engines."""
        if self.process is None:
            return []
        found = []
        for one in [self.process, *self.process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                if (_engine(one.cmdline()) is not None) == engines:
                    found.append(one)
        return found

    def cpu_s(self) -> float:
        """CPU seconds that its processes have used so far."""
        times = [one.cpu_times() for one in self.family()]
        return sum(t.user + t.system for t in times)

    def rss_mib(self) -> float:
        """Resident memory of its processes now."""
        return sum(one.memory_info().rss for one in self.family()) / 2**20

    def engines(self, model: str | None = None) -> list[str]:
        """The addresses of the engines that it has started, of all models or of ``model``."""
        engines = [_engine(one.cmdline()) for one in self.family(engines=True)]
        return [f"http://127.0.0.1:{e[0]}" for e in engines if e and model in (None, e[1])]


def _engine(line: Sequence[str]) -> tuple[str, str] | None:
    """The port and model of the engine with this command line; None for any other program.

    >>> _engine(["/x/mock-engine", "--port", "70", "--model", "m"])
    ('70', 'm')
    """
    for program, name in ENGINES.items():
        if any(word.endswith(program) for word in line[:2]):
            return line[line.index("--port") + 1], line[line.index(name) + 1]
    return None


#: Starts a peer, given the addresses of engines, a folder for its files and its core.
Peer = Callable[[Sequence[str], Path, int], AbstractContextManager[ProxyUnderTest]]


@contextmanager
def running_process(
    command: Sequence[str],
    *,
    core: int | None,
    log: Path,
    ready: str,
    env: Mapping[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """The process, once ``ready`` answers 200; it ends with the block.

    Raises:
        StackError: it ended, or was not ready in time; the message holds the end of its log.
    """
    with log.open("w") as output:
        pin_command = [] if core is None else ["taskset", "-c", str(core)]
        process = subprocess.Popen(
            [*pin_command, *command],
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
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
        ConfigError: the environment does not exist.
    """
    folder = sage_cache() / "venv" / f"peer-{name}"
    if not (folder / ".stamp").exists():
        raise ConfigError(f"no environment {folder}; run `bash infra/peers.sh`")
    return folder / "bin"


def version(commands: Path, package: str) -> str:
    """The version of a package in the environment of ``commands``."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run(
        [commands / "python", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def cores() -> tuple[int, int]:
    """A core for the proxy, and another for load and engine.

    Raises:
        ConfigError: this process may use only one core.
    """
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise ConfigError("this benchmark needs two cores: one is reserved for the proxy")
    return found[0], found[-1]


def pin(process: psutil.Process, core: int) -> None:
    """Move all threads of a running process to this core."""
    line = ["taskset", "-a", "-c", "-p", str(core), str(process.pid)]
    subprocess.run(line, check=True, capture_output=True)
