"""The format of a trace: JSON lines, a header with the models and one row per request, no texts.

Times are seconds; ``arrived_s`` is of the epoch, all others are durations or since the arrival.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sage_flink.common import ConfigError
from sage_flink.flow.call_options import PRIORITY
from sage_gateway.config.pool_spec import PoolSpec

VERSION = 1


class ModelHeader(msgspec.Struct, frozen=True):
    """A model as it was when its requests were recorded; ``scaling`` as in ``pool.yaml``."""

    policy: str
    replicas: int
    concurrency: int
    queue_max: int
    queue_timeout_s: float
    scaling: dict[str, bool | float | None] | None = None


class TraceHeader(msgspec.Struct, frozen=True):
    """The first line."""

    sage_pool_trace: int
    models: dict[str, ModelHeader]
    sample: float = 1.0


class TraceRow(msgspec.Struct, frozen=True):
    """One request. ``tokens``: expected; ``used``: counted by the engine.

    ``service_s``: the time at the engine, None if it was not answered.
    """

    arrived_s: float
    model: str
    tokens: int
    tenant: str = ""
    priority: str = PRIORITY
    deadline_s: float | None = None
    soft_deadline_s: float | None = None
    waited_s: float = 0.0
    service_s: float | None = None
    ttft_s: float | None = None
    used: int | None = None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, in the order of the arrivals."""

    header: TraceHeader
    rows: tuple[TraceRow, ...]

    def of(self, model: str) -> tuple[TraceRow, ...]:
        """The requests to one model."""
        return tuple(row for row in self.rows if row.model == model)


def header_of(spec: PoolSpec, sample: float = 1.0) -> TraceHeader:
    """The header of a trace of this pool."""
    models: Mapping[str, ModelHeader] = {
        name: ModelHeader(
            policy=model.policy,
            replicas=model.replicas,
            concurrency=model.concurrency_max,
            queue_max=model.queue_max,
            queue_timeout_s=model.queue_timeout_s,
            scaling=model.scaling.model_dump() if model.scaling else None,
        )
        for name, model in spec.models.items()
    }
    return TraceHeader(VERSION, dict(models), sample)


def read(path: Path) -> Trace:
    """The trace at ``path``; an incomplete last line is ignored.

    Raises:
        ConfigError: it cannot be read, or is not a trace.
    """
    try:
        first, *lines = path.read_bytes().splitlines(keepends=True)
        header = msgspec.json.decode(first, type=TraceHeader)
        if header.sage_pool_trace != VERSION:
            raise ConfigError(f"{path}: a trace of version {header.sage_pool_trace}, not {VERSION}")
        rows = _rows(line for line in lines if line.endswith(b"\n"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a file that exists") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(
            f"{path}: not a trace ({error}); record one with `trace: {{path: FILE}}` in pool.yaml"
        ) from error
    if not rows:
        raise ConfigError(f"{path}: a trace without requests; record some")
    return Trace(header, rows)


def _rows(lines: Iterable[bytes]) -> tuple[TraceRow, ...]:
    decoder = msgspec.json.Decoder(TraceRow)
    return tuple(sorted(map(decoder.decode, lines), key=lambda row: row.arrived_s))
