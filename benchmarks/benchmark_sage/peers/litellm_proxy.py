"""LiteLLM's proxy: one worker on its core, without a database, logs off.

Set up as in its page "Best practices for production", with the recommended routing
``simple-shuffle``. ``slots``: its own limit of requests per engine (``max_parallel_requests``),
beyond which it answers 429. https://docs.litellm.ai/docs/proxy/prod
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmark_sage.proxies import ProxyUnderTest, environment, free_port, running_process, version

KEY = "sk-benchmark"
ENV = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no request to the internet for prices
    "NO_DOCS": "True",
}


@contextmanager
def litellm(
    engines: Sequence[str], folder: Path, core: int, *, slots: int | None = None
) -> Iterator[ProxyUnderTest]:
    """LiteLLM in front of these engines, all of them the model ``mock``.

    Raises:
        ConfigError: its environment does not exist.
        StackError: it does not start.
    """
    commands, port = environment("litellm"), free_port()
    config = settings(engines, slots)
    file = folder / f"litellm-{port}.yaml"
    file.write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(commands / "litellm"), "--config", str(file)),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"),
    ]
    log, ready = file.with_suffix(".log"), f"{url}/health/liveliness"
    setup = {"version": version(commands, "litellm"), "config": config, "env": ENV}
    with running_process(command, core=core, log=log, ready=ready, env=ENV) as process:
        yield ProxyUnderTest(url, KEY, setup, process)


def settings(engines: Sequence[str], slots: int | None) -> dict[str, Any]:
    """Its ``config.yaml``."""
    limit = {} if slots is None else {"max_parallel_requests": slots}
    models = [
        {
            "model_name": "mock",
            "litellm_params": {
                "model": "openai/mock",
                "api_base": f"{url}/v1",
                "api_key": "none",
                **limit,
            },
        }
        for url in engines
    ]
    return {
        "model_list": models,
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"request_timeout": 600, "set_verbose": False},
        "router_settings": {"routing_strategy": "simple-shuffle", "num_retries": 0},
    }
