"""Plans of requests, each at its moment, sent by the ``replay`` command: open loop, in Go."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sage_flink.common import ConfigError, sage_home


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request; see ``benchmarks/mock_engine/cmd/replay``."""

    at_s: float
    url: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = {}
    after: int | None = None
    deadline_s: float = 0.0


class Told(msgspec.Struct, frozen=True):
    """What came of one: status 0 is no whole answer; times count from when it was due."""

    status: int
    first_ms: float
    took_ms: float
    why: str = ""


def replayed(plan: Sequence[Line], *, grace_s: float) -> list[Told]:
    """What came of each line, in their order.

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
    return [msgspec.json.decode(line, type=Told) for line in done.stdout.splitlines()]
