"""sage's gateway as it is shipped, in its own environment: admission, accounting, ledger and all.

It starts its engines itself; they are moved to the core of the load.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmark_sage.proxies import START_TIMEOUT_S, Proxy, free_port, pin, started
from benchmark_sage.results import commit
from sage_flink.common import ConfigError, StackError, sage_home

KEY = "sk-sage-benchmark"


@contextmanager
def sage_gateway(
    models: Mapping[str, Mapping[str, Any]],
    folder: Path,
    core: int | None,
    *,
    engine_core: int | None,
    **rest: Any,
) -> Iterator[Proxy]:
    """The gateway with these models, as ``pool.yaml`` has them, once all are ready.

    ``rest``: what else that file is to hold.

    Raises:
        ConfigError: its environment is not there.
        StackError: it does not start.
    """
    python, port = sage_home() / "venv" / "gateway" / "bin" / "python", free_port()
    if not python.exists():
        raise ConfigError(f"no environment {python.parents[1]}; run `bash infra/setup.sh`")
    home = folder / f"sage-{port}"
    home.mkdir()
    (home / "lib").symlink_to((sage_home() / "lib").resolve())
    pool, wanted = home / "pool.yaml", {"models": dict(models), **rest}
    pool.write_text(yaml.safe_dump(wanted))
    command = [str(python), "-m", "sage_gateway.app", "--port", str(port), "--pool", str(pool)]
    url, env = f"http://127.0.0.1:{port}", {"SAGE_HOME": str(home), "SAGE_GATEWAY_KEY": KEY}
    log = home / "sage-gateway.log"
    with started(command, core=core, log=log, ready=f"{url}/health", env=env) as process:
        _all_ready(url, sum(model.get("replicas", 1) for model in models.values()))
        told = {"commit": commit(), "pool": wanted}
        proxy = Proxy(url, KEY, told, process, model=next(iter(models)))
        if engine_core is not None:
            for engine in proxy.family(engines=True):
                pin(engine, engine_core)
        yield proxy


def _all_ready(url: str, replicas: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        models = httpx.get(f"{url}/health", timeout=5).json()["models"]
        ready = sum(model["ready"] for model in models.values())
        if ready == replicas:
            return
        if time.monotonic() > deadline:
            raise StackError(f"{ready} of {replicas} replicas are ready: {models}")
        time.sleep(0.05)
