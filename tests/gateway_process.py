"""Gateway as a separate process that a test can kill."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import yaml
from redis_server import free_port
from waiting import wait_until

KEY = "sk-sage-test"


@contextmanager
def gateway_process(
    home: Path,
    models: dict[str, Any],
    *,
    port: int = 0,
    module: str = "sage_gateway.app",
    words: Sequence[str] = (),
    more: Mapping[str, str] = MappingProxyType({}),
    **rest: Any,
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """The process and a client of it, once all models are ready; killed with -9 afterwards.

    With a ``port`` it succeeds a gateway that was killed there. ``module`` is the command,
    ``words`` are its further arguments, ``more`` further environment variables, ``rest`` entries of
    ``pool.yaml``.
    """
    port = port or free_port()
    pool = home / f"pool-{port}.yaml"
    pool.write_text(yaml.safe_dump({"models": models, "engine_grace_s": 0, **rest}))
    line = [sys.executable, "-m", module, "--port", str(port), "--pool", str(pool)]
    line += words
    env = {**os.environ, "SAGE_HOME": str(home), "SAGE_GATEWAY_KEY": KEY, **more}
    with (home / f"gateway-{port}.log").open("a") as log:
        process = subprocess.Popen(line, env=env, stdout=log, stderr=log)
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=20, verify=False) as client:
            wait_until(lambda: _healthy(client), 60, f"the gateway, see {log.name}")
            yield process, client
    finally:
        process.kill()
        process.wait()


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False
