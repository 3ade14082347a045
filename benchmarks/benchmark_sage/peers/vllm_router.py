"""vLLM's router, in Rust: its defaults, except the policy under test and the log level."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmark_sage.proxies import ProxyUnderTest, environment, free_port, running_process, version


@contextmanager
def vllm_router(
    engines: Sequence[str], folder: Path, core: int | None, *, policy: str = "round_robin"
) -> Iterator[ProxyUnderTest]:
    """The router in front of these engines.

    Raises:
        ConfigError: its environment does not exist.
        StackError: it does not start.
    """
    commands, port = environment("vllm-router"), free_port()
    url = f"http://127.0.0.1:{port}"
    chosen = ["--policy", policy, "--log-level", "error"]
    command = [
        *(str(commands / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)),
        *("--prometheus-port", str(free_port()), *chosen, "--worker-urls", *engines),
    ]
    setup = {"version": version(commands, "vllm-router"), "arguments": chosen}
    log = folder / f"vllm-router-{policy}.log"
    with running_process(command, core=core, log=log, ready=f"{url}/health") as process:
        yield ProxyUnderTest(url, "", setup, process)
