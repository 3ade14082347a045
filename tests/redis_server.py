"""Redis server for tests: on a free port, without persistence, stopped after the block."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import wait_until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of a server that runs during the block."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("no redis-server on PATH; apt-get install redis-server, or run infra/setup.sh")
    port = free_port()
    line = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("w") as log:
        server = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), 10, f"redis-server, see {folder}/redis.log")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()
