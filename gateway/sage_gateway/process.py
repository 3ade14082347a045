"""One engine process: started tied to this one, ended with everything it started."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from sage_flink.common import ConfigError
from sage_flink.common.settings import sage_cache

TETHER = Path(__file__).parent / "engines" / "tether.py"
TERMINATE_S = 5.0
LOG_BYTES_MAX = 16 << 20


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


async def start(
    argv: Sequence[str], env: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    """A running child in a process group of its own; its output is appended to ``log``.

    It is killed when this process dies, however this process dies.
    """
    line = [sys.executable, "-S", "-E", str(TETHER), str(os.getpid()), *argv]
    with _opened(log) as output:
        return await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )


async def stop(process: asyncio.subprocess.Process) -> int:
    """The exit code, after SIGTERM and, ``TERMINATE_S`` later, SIGKILL to the whole group."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), TERMINATE_S)
    _signal(process.pid, signal.SIGKILL)  # a stopped process, or what it left behind
    return await process.wait()


async def kill(process: asyncio.subprocess.Process) -> int:
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
