"""A schema registry for tests: Apicurio on a free port, in memory, stopped after the block.

The program comes from Maven Central once per user, into ``$SAGE_CACHE``.
"""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis_server import free_port
from waiting import wait_until

VERSION = "2.6.13.Final"
NAME = f"apicurio-registry-app-{VERSION}"


def program() -> Path:
    """The registry's runnable jar."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("SAGE_CACHE") or Path(home) / "sage")
    folder = cache / NAME
    jar = folder / f"{NAME}-runner.jar"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jar.exists():
            _download(folder)
    return jar


def _download(folder: Path) -> None:
    artifact = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
    line = ["mvn", "-B", "-q", "dependency:copy", f"-Dartifact={artifact}"]
    done = subprocess.run(
        [*line, f"-DoutputDirectory={folder}"], capture_output=True, text=True, timeout=300
    )
    archives = list(folder.glob("*.tar.gz")) if folder.exists() else []
    if done.returncode != 0 or not archives:
        pytest.fail(f"{artifact} cannot be downloaded: {done.stdout[-500:]}{done.stderr[-500:]}")
    subprocess.run(["tar", "-xzf", archives[0], "-C", folder], check=True)
    archives[0].unlink()


@contextmanager
def schema_registry(folder: Path, port: int = 0) -> Iterator[str]:
    """The URL of Confluent's API of a registry that runs during the block."""
    port = port or free_port()
    options = [f"-Dquarkus.http.port={port}", "-Dquarkus.http.host=127.0.0.1", "-Xmx300m"]
    with (folder / "registry.log").open("a") as log:
        server = subprocess.Popen(
            ["java", *options, "-jar", str(program())], stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/subjects", verify=False).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers, 180, f"the schema registry, see {folder}/registry.log")
        yield url
    finally:
        server.kill()
        server.wait()
