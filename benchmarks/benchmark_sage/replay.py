"""Open loop on HTTP: the Go command ``replay`` sends each request of a plan at its due time."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sage_flink.common import ConfigError, sage_home


class PlannedRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request of a plan; see ``benchmarks/mock_engine/cmd/replay``."""

    at_s: float
    url: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = {}
    after: int | None = None
    deadline_s: float = 0.0


class RequestResult(msgspec.Struct, frozen=True):
    """Result of one request. Status 0: no complete answer. Times count from the due time."""

    status: int
    first_ms: float
    took_ms: float
    why: str = ""


def replay_plan(plan: Sequence[PlannedRequest], *, grace_s: float) -> list[RequestResult]:
    """The result of each request, in the order of the plan.

    Raises:
        ConfigError: the command is not built, or the plan is wrong.
    """
    program = sage_home() / "lib" / "replay"
    if not program.exists():
        raise ConfigError(f"no {program}; run `bash infra/setup.sh`")
    lines = b"\n".join(msgspec.json.encode(line) for line in plan)
    command = [str(program), f"--grace={grace_s}s"]
    done = subprocess.run(command, input=lines, capture_output=True, check=False)
    if done.returncode:
        raise ConfigError(f"replay: {done.stderr.decode()[-500:]}")
    return [msgspec.json.decode(line, type=RequestResult) for line in done.stdout.splitlines()]
