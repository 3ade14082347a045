"""One engine process: started tied to this one or taken over, ended with everything it started."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from sage_flink.common import ConfigError
from sage_flink.common.settings import sage_cache

TETHER = Path(__file__).with_name("tether.py")
TERMINATE_S = 5.0
LOG_BYTES_MAX = 16 << 20


class Process(Protocol):
    """An engine's process, the first of its group, as :mod:`asyncio` has it."""

    @property
    def pid(self) -> int:
        """Its id, and its group's."""

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""

    async def wait(self) -> int:
        """How it ended, once it has."""


class Adopted:
    """A process that another one has started; made on the loop that waits for it.

    How it ends is only told to its parent: ``returncode`` is then ``UNKNOWN``.

    Raises:
        OSError: there is none of that id.
    """

    UNKNOWN = -1

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._over = asyncio.Event()
        self._handle = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._handle, self._end)

    async def wait(self) -> int:
        """``UNKNOWN``, once it has ended."""
        await self._over.wait()
        return self.UNKNOWN

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self.returncode = self.UNKNOWN
        self._over.set()


def free_port() -> int:
    """A loopback port that was free a moment ago; an engine that loses the race is restarted."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def interpreter(environment: str, made_by: str) -> Path:
    """The python of a virtual environment for engines; ``made_by`` is the script that makes it.

    The one named in ``SAGE_<ENVIRONMENT>_PYTHON``, else ``$SAGE_CACHE/venv/<environment>``, else
    the newest ``<environment>-*`` there; of no environment, this process's own.

    Raises:
        ConfigError: there is none.
    """
    if not environment:
        return Path(sys.executable)
    variable = f"SAGE_{environment.upper()}_PYTHON"
    if named := os.environ.get(variable):
        return Path(named)
    folder = sage_cache() / "venv"
    plain = folder / environment / "bin" / "python"
    if plain.exists():
        return plain
    found = [p for p in folder.glob(f"{environment}-*/bin/python") if p.exists()]
    if not found:
        raise ConfigError(
            f"no environment {folder / environment}; run `bash {made_by}`, or set {variable}"
        )
    return max(found, key=lambda p: p.parents[1].stat().st_mtime)


@dataclass(frozen=True, slots=True)
class Tie:
    """What becomes of an engine when this process dies, however it dies.

    It has ``grace_s`` until another process must have named itself its owner in ``record``; 0: none
    can, and it is killed.
    """

    grace_s: float = 0.0
    record: Path = Path()


async def start(
    argv: Sequence[str], env: Mapping[str, str], log: Path, tie: Tie = Tie()
) -> asyncio.subprocess.Process:
    """A running child in a process group of its own; its output is appended to ``log``."""
    line = [sys.executable, "-S", "-E", str(TETHER), str(os.getpid())]
    line += [f"{tie.grace_s:g}", str(tie.record), *argv]
    with _opened(log) as output:
        return await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )


async def stop(process: Process) -> int:
    """The exit code, after SIGTERM and, ``TERMINATE_S`` later, SIGKILL to the whole group."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), TERMINATE_S)
    _signal(process.pid, signal.SIGKILL)  # a stopped process, or what it left behind
    return await process.wait()


async def kill(process: Process) -> int:
    """The exit code, after SIGKILL to the whole group."""
    _signal(process.pid, signal.SIGKILL)
    return await process.wait()


def _opened(log: Path) -> BinaryIO:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    return log.open("ab")


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
