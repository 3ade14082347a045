"""milvus-lite as a server for tests: on a free port, ended after the block."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis_server import free_port, listens
from waiting import wait_until

from sage_flink.common.settings import sage_home


@contextmanager
def milvus_lite_server(folder: Path) -> Iterator[str]:
    """The URL of a server that runs during the block, with its data in ``folder``."""
    program = sage_home() / "venv" / "milvus-lite" / "bin" / "milvus-lite"
    if not program.exists():
        pytest.fail(f"no {program}; run infra/setup.sh")
    port = free_port()
    line = [program, "server", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "milvus-lite.log").open("w") as log:
        server = subprocess.Popen([*line, "--data-dir", folder / "data"], stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), 30, f"milvus-lite, see {folder}/milvus-lite.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
