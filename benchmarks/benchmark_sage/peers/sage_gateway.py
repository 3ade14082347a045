"""sage's gateway with all its features, in its own environment: admission, quotas, idempotency.

It starts its engines itself; they are moved to the core of the load generator.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmark_sage.proxies import START_TIMEOUT_S, ProxyUnderTest, free_port, pin, running_process
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
    checkout: Path | None = None,
    **rest: Any,
) -> Iterator[ProxyUnderTest]:
    """The gateway with these models of ``pool.yaml``, once all are ready.

    ``rest``: the other entries of that file. ``checkout``: the gateway of another checkout, by
    default of this one.

    Raises:
        ConfigError: its environment does not exist.
        StackError: it does not start.
    """
    of = sage_home() if checkout is None else checkout.resolve() / ".sage"
    python, port = of / "venv" / "gateway" / "bin" / "python", free_port()
    if not python.exists():
        raise ConfigError(f"no environment {python.parents[1]}; run `bash infra/setup.sh`")
    home = folder / f"sage-{port}"
    home.mkdir()
    (home / "lib").symlink_to((sage_home() / "lib").resolve())
    pool, spec = home / "pool.yaml", {"models": dict(models), **rest}
    pool.write_text(yaml.safe_dump(spec))
    command = [str(python), "-m", "sage_gateway.app", "--port", str(port), "--pool", str(pool)]
    url = f"http://127.0.0.1:{port}"
    # Of another checkout: not the modules of the folder in which the benchmark runs.
    env = {"SAGE_HOME": str(home), "SAGE_GATEWAY_KEY": KEY, "PYTHONSAFEPATH": "1"}
    log = home / "sage-gateway.log"
    with running_process(command, core=core, log=log, ready=f"{url}/health", env=env) as process:
        _all_ready(url, sum(model.get("replicas", 1) for model in models.values()))
        setup = {"commit": commit(checkout), "pool": spec}
        proxy = ProxyUnderTest(url, KEY, setup, process, model=next(iter(models)))
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
