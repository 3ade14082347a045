"""Mock engine as a separate process, for benchmarks, drills and conformance tests.

The text of a request determines the answer, its latency and its faults; see
``benchmarks/mock_engine/README.md``.
"""

import json
import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from sage_flink.common import ConfigError, sage_home

END_TIMEOUT_S = 5.0
#: The engine's address is http. httpx would else read all certificates at each request: 20 ms.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True)
class MockEngine:
    """A running engine: its base URL (without ``/v1``) and process id."""

    url: str
    pid: int

    def stats(self) -> dict[str, Any]:
        """Its counters since the start or the last :meth:`reset`; times are in seconds."""
        stats: dict[str, Any] = self._request("GET", "/stats")
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """The first ``record`` requests: path, headers, body, start and end time."""
        requests: list[dict[str, Any]] = self._request("GET", "/requests")
        return requests

    def reset(self) -> None:
        """Reset all counters, also those of faults with ``first=N``."""
        self._request("POST", "/stats/reset")

    def control(self, **plan: str | float | bool) -> None:
        """Change the plan: ``latency``, ``fail_rate``, ``fail_status``, ``hang``.

        Raises:
            ConfigError: the engine rejects a setting or its value.
        """
        self._request("POST", "/control", plan)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = httpx.request(method, self.url + path, json=body, timeout=10, verify=NO_TLS)
        if answer.status_code != 200:
            raise ConfigError(f"mock engine: {method} {path}: {answer.text[:300]}")
        return answer.json()


@contextmanager
def mock_engine(
    latency: str = "none",
    *,
    port: int = 0,
    seed: int = 1,
    dim: int = 384,
    answer_tokens: int = 16,
    fail_rate: float = 0.0,
    fail_status: int = 500,
    per_item: str = "0s",
    record: int = 0,
    capacity: Sequence[str] = (),
    core: int | None = None,
) -> Iterator[MockEngine]:
    """A mock engine that ends with the block, or with this process.

    ``latency`` is ``none``, ``constant:20ms`` or ``lognormal:MEAN:SIGMA``; ``per_item`` is added
    for every text of an embedding request. ``capacity``: further options, which limit the engine,
    such as ``--slots=4``. ``core``: the only core it may run on.

    Raises:
        ConfigError: the engine is not built, or an option is wrong.
    """
    flags = (
        *(f"--latency={latency}", f"--port={port}", f"--seed={seed}", f"--dim={dim}"),
        *(f"--answer-tokens={answer_tokens}", f"--per-item={per_item}", f"--record={record}"),
        *(f"--fail-rate={fail_rate}", f"--fail-status={fail_status}", f"--parent={os.getpid()}"),
    )
    program = sage_home() / "lib" / "mock-engine"
    if not program.exists():
        raise ConfigError(f"the mock engine is not built ({program}); run `bash infra/setup.sh`")
    pin = [] if core is None else ["taskset", "-c", str(core)]
    command = [*pin, str(program), *flags, *capacity]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield MockEngine(_url(process), process.pid)
    finally:
        _end(process)


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        raise ConfigError(f"the mock engine did not start: {process.stderr.read().strip()}")
    return str(json.loads(line)["url"])


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
