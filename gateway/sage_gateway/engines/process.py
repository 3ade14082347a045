"""One engine process: started and tied to this process or adopted, ended with its whole group."""

import asyncio
import contextlib
import os
import re
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
LINE_CHARS_MAX = 300
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Process(Protocol):
    """An engine's process, the leader of its group, with the interface of :mod:`asyncio`."""

    @property
    def pid(self) -> int:
        """The id of the process and of its group."""

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs."""

    async def wait(self) -> int:
        """Return the exit code once it has ended."""


class AdoptedProcess:
    """A process that another process has started; created on the loop that waits for it.

    Only its parent gets its exit code: here ``returncode`` is ``UNKNOWN`` once it has ended.

    Raises:
        OSError: there is no process with that id.
    """

    UNKNOWN = -1

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._handle = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._handle, self._end)

    async def wait(self) -> int:
        """Return ``UNKNOWN`` once it has ended."""
        await self._ended.wait()
        return self.UNKNOWN

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self.returncode = self.UNKNOWN
        self._ended.set()


def free_port() -> int:
    """A loopback port that was free a moment ago; an engine that loses the race is restarted."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def interpreter(environment: str, setup_script: str) -> Path:
    """The python of a virtual environment for engines, which ``setup_script`` creates.

    The one named in ``SAGE_<ENVIRONMENT>_PYTHON``, else ``$SAGE_CACHE/venv/<environment>``, else
    the newest ``<environment>-*`` there; without an environment, this process's own.

    Raises:
        ConfigError: there is no such environment.
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
        make = f"run `bash {setup_script}`" if setup_script else f"install {environment} into it"
        raise ConfigError(f"no environment {folder / environment}; {make}, or set {variable}")
    return max(found, key=lambda p: p.parents[1].stat().st_mtime)


@dataclass(frozen=True, slots=True)
class Tether:
    """How an engine ends when this process dies, however it dies.

    It is ended after ``grace_s`` unless another process has made itself its owner in ``record`` by
    then. With 0 it is killed immediately.
    """

    grace_s: float = 0.0
    record: Path = Path()


def tether_command(argv: Sequence[str], tether: Tether = Tether()) -> list[str]:
    """The command line of ``argv`` as a process that is tied to this one."""
    line = [sys.executable, "-S", "-E", str(TETHER), str(os.getpid())]
    return [*line, f"{tether.grace_s:g}", str(tether.record), *argv]


async def start(
    argv: Sequence[str], env: Mapping[str, str], log: Path, tether: Tether = Tether()
) -> asyncio.subprocess.Process:
    """A running child in a process group of its own; its output is appended to ``log``."""
    with _open_log(log) as output:
        return await asyncio.create_subprocess_exec(
            *tether_command(argv, tether),
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


def log_size(log: Path) -> int:
    """The bytes of a log, 0 if there is no file."""
    return log.stat().st_size if log.exists() else 0


def last_line(log: Path, after: int) -> str:
    """The last line with text after the first ``after`` bytes of a log, cut off where it is long.

    Empty if there is no such line. A log that is shorter has been rotated since, and is read whole.
    """
    size = log_size(log)
    if not size:
        return ""
    first = after if after <= size else 0
    with log.open("rb") as file:
        file.seek(max(first, size - 4 * LINE_CHARS_MAX))
        text = _COLOUR.sub("", file.read().decode(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    return "".join(c for c in line if c.isprintable())[:LINE_CHARS_MAX]


def _open_log(log: Path) -> BinaryIO:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log_size(log) > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    return log.open("ab")


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
