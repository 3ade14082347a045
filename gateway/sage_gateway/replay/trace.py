"""A recording of requests: JSON lines, the first of which tells the models. No text of anybody.

Times are seconds; ``arrived_s`` is of the epoch, all others are since the arrival, or how long.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sage_flink.common import ConfigError
from sage_flink.flow.call_options import PRIORITY
from sage_gateway.config.pool_spec import PoolSpec

VERSION = 1


class ModelHead(msgspec.Struct, frozen=True):
    """A model as it was when its requests were recorded; ``scaling`` as in ``pool.yaml``."""

    policy: str
    replicas: int
    concurrency: int
    queue_max: int
    queue_timeout_s: float
    scaling: dict[str, bool | float | None] | None = None


class Head(msgspec.Struct, frozen=True):
    """The first line."""

    sage_pool_trace: int
    models: dict[str, ModelHead]
    sample: float = 1.0


class Row(msgspec.Struct, frozen=True):
    """One request. ``tokens`` were expected, ``used`` were counted by the engine.

    ``service_s`` is what the engine took, None of one that was not answered.
    """

    arrived_s: float
    model: str
    tokens: int
    tenant: str = ""
    priority: str = PRIORITY
    deadline_s: float | None = None
    waited_s: float = 0.0
    service_s: float | None = None
    ttft_s: float | None = None
    used: int | None = None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Trace:
    """A recording, in the order of the arrivals."""

    head: Head
    rows: tuple[Row, ...]

    def of(self, model: str) -> tuple[Row, ...]:
        """The requests to one model."""
        return tuple(row for row in self.rows if row.model == model)


def head_of(spec: PoolSpec, sample: float = 1.0) -> Head:
    """The first line of a recording of this pool."""
    models: Mapping[str, ModelHead] = {
        name: ModelHead(
            policy=model.policy,
            replicas=model.replicas,
            concurrency=model.concurrency_max,
            queue_max=model.queue_max,
            queue_timeout_s=model.queue_timeout_s,
            scaling=model.scaling.model_dump() if model.scaling else None,
        )
        for name, model in spec.models.items()
    }
    return Head(VERSION, dict(models), sample)


def read(path: Path) -> Trace:
    """The recording at ``path``; a last line that was cut off is left out.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        first, *lines = path.read_bytes().splitlines(keepends=True)
        head = msgspec.json.decode(first, type=Head)
        if head.sage_pool_trace != VERSION:
            raise ConfigError(f"{path}: a trace of version {head.sage_pool_trace}, not {VERSION}")
        rows = _rows(line for line in lines if line.endswith(b"\n"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a file that exists") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(
            f"{path}: no trace ({error}); record one with `trace: {{path: FILE}}` in pool.yaml"
        ) from error
    if not rows:
        raise ConfigError(f"{path}: a trace without requests; record some")
    return Trace(head, rows)


def _rows(lines: Iterable[bytes]) -> tuple[Row, ...]:
    decoder = msgspec.json.Decoder(Row)
    return tuple(sorted(map(decoder.decode, lines), key=lambda row: row.arrived_s))
