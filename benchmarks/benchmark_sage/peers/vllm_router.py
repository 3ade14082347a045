"""vLLM's router, in Rust: its defaults, but for the policy that is asked for and the logs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmark_sage.proxies import Proxy, environment, free_port, started, version


@contextmanager
def vllm_router(
    engines: Sequence[str], folder: Path, core: int | None, *, policy: str = "round_robin"
) -> Iterator[Proxy]:
    """The router in front of these engines.

    Raises:
        ConfigError: its environment is not there.
        StackError: it does not start.
    """
    commands, port = environment("vllm-router"), free_port()
    url = f"http://127.0.0.1:{port}"
    chosen = ["--policy", policy, "--log-level", "error"]
    command = [
        *(str(commands / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)),
        *("--prometheus-port", str(free_port()), *chosen, "--worker-urls", *engines),
    ]
    told = {"version": version(commands, "vllm-router"), "arguments": chosen}
    log = folder / f"vllm-router-{policy}.log"
    with started(command, core=core, log=log, ready=f"{url}/health") as process:
        yield Proxy(url, "", told, process)
