"""What the pool should be: ``pool.yaml``, checked. A spec is data; nothing here starts anything."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Kind = Literal["chat", "embedding", "rerank"]
Routing = Literal["least_loaded", "round_robin", "power_of_two", "prefix", "session", "key_group"]
Scheduling = Literal["fifo", "priority", "slo", "fair", "cost", "adaptive"]

CONCURRENCY_MAX = 256  # of a replica whose concurrency is measured


def _auto(value: object) -> object:
    """None for ``auto``; a number goes on to be checked as one."""
    if value is None or isinstance(value, int | float):
        return value
    if value == "auto":
        return None
    raise PydanticCustomError("concurrency", "must be a whole number, or auto")


Concurrency = Annotated[Annotated[int, Field(ge=1, le=4096)] | None, BeforeValidator(_auto)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HealthSpec(_Spec):
    """When a replica counts as ready, hung or lost, and how fast it is started again.

    One that hangs is sent nothing more, while another is well, after ``interval_s + suspect_s`` at
    most; it is started anew only after ``missed_max`` checks that took ``timeout_s``, because a
    busy one may be slow to answer and must not be killed for it.
    """

    interval_s: float = Field(default=1.0, gt=0)
    # llama.cpp and onnxruntime, fully loaded on two shared cores, took 0.23 s at most.
    suspect_s: float = Field(
        default=0.8, gt=0, description="a check unanswered for so long makes it the last choice"
    )
    timeout_s: float = Field(default=5.0, gt=0)
    missed_max: int = Field(default=3, ge=1)
    start_timeout_s: float = Field(default=120.0, gt=0)
    backoff_first_s: float = Field(default=0.2, gt=0)
    backoff_max_s: float = Field(default=30.0, gt=0)
    stable_s: float = Field(
        default=30.0, gt=0, description="ready for so long, the back-off starts anew"
    )


class ScalingSpec(_Spec):
    """How many replicas a model may have, and when; see :mod:`sage_gateway.autoscaling.decide`."""

    min: int = Field(default=1, ge=0, le=64, description="0: none after idle_s without a request")
    max: int = Field(ge=1, le=64)
    target_queue_wait_ms: float = Field(default=1000.0, gt=0, description="p99; background aside")
    target_ttft_ms: float | None = Field(default=None, gt=0, description="p99 of streams")
    target_tpot_ms: float | None = Field(default=None, gt=0, description="p99 of streams")
    up_cooldown_s: float = Field(default=10.0, ge=0, description="none is added so soon again")
    down_cooldown_s: float = Field(default=60.0, ge=0, description="none is removed so soon")
    idle_s: float = Field(default=300.0, gt=0)
    dry_run: bool = Field(default=False, description="decisions are told, and not followed")


class ModelSpec(_Spec):
    """One model: its engine, its weights, its limits. Limits are those of one replica."""

    engine: str
    kind: Kind
    source: str | None = Field(
        default=None,
        description="weights, where the engine has any: below the folder of models, or absolute; "
        "of a remote engine its base URL",
    )
    key_env: str = Field(
        default="",
        pattern=r"^([A-Z][A-Z0-9_]*_API_KEY)?$",
        description="the environment variable with a remote engine's key",
    )
    remote_model: str = Field(default="", description="what a remote engine calls the model")
    aliases: tuple[Name, ...] = ()
    replicas: int = Field(default=1, ge=1, le=64)
    slots: int = Field(default=4, ge=1, le=1024)
    context_tokens: int = Field(default=2048, ge=16)
    threads: int = Field(default=1, ge=1, le=256)
    gpu_memory_mb: int = Field(
        default=0, ge=0, description="what a replica takes of the GPUs, for the budget"
    )
    concurrency: Concurrency = Field(
        default=128, description="requests inside one replica; 'auto': as measured"
    )
    device: Name | None = Field(
        default=None, description="one of `devices`: what it computes on together with other models"
    )
    share: float = Field(
        default=1.0, gt=0, le=1000, description="its weight among the models of the device"
    )
    policy: Scheduling = Field(
        default="fifo", description="who goes first of those who wait for a replica with room"
    )
    queue_max: int = Field(default=1024, ge=0, le=100_000, description="who may wait; beyond: 429")
    queue_timeout_s: float = Field(default=30.0, gt=0, description="how long one waits; then: 429")
    timeout_s: float = Field(default=300.0, gt=0)
    dim: int | None = Field(
        default=None, ge=1, description="size of the vectors of an embedding model"
    )
    arguments: tuple[str, ...] = Field(
        default=(), description="appended to the engine's command line"
    )
    routing: Routing = Field(
        default="least_loaded",
        description="how a request's replica is chosen: by load; by the beginning of its prompt; "
        "by its header x-session-id (session) or x-key-group (key_group)",
    )
    hedge_after_ms: float | None = Field(
        default=None,
        gt=0,
        description="of an embedding model: ask a second replica after so long; the first answer "
        "is taken. Off by default",
    )
    health: HealthSpec = HealthSpec()
    scaling: ScalingSpec | None = Field(
        default=None, description="without it the number of replicas stays; else it is the first"
    )

    @property
    def concurrency_max(self) -> int:
        """How many requests a replica is ever sent at a time."""
        return self.concurrency or CONCURRENCY_MAX


class CollectionSpec(_Spec):
    """Which embedding model a collection's vectors come from."""

    model: Name


class BudgetSpec(_Spec):
    """What all replicas together may take; what is left out is what the machine has."""

    cpu_threads: int | None = Field(default=None, ge=1, description="beyond the machine: told only")
    memory_mb: int | None = Field(default=None, ge=1)
    gpu_memory_mb: int | None = Field(default=None, ge=1)


class DeviceSpec(_Spec):
    """What several models compute on; see :mod:`sage_gateway.scheduling.shared_device`."""

    concurrency: int = Field(ge=1, le=4096, description="requests of all its models at a time")


class LedgerSpec(_Spec):
    """How calls that name an id are answered once; see :mod:`sage_gateway.idempotency`."""

    store: Literal["sqlite", "redis", "off"] = Field(
        default="sqlite", description="redis where several gateways answer the same callers"
    )
    url: str | None = Field(default=None, description="of Redis: redis://HOST:PORT/0")
    ttl_s: float = Field(default=86_400.0, gt=0, description="how long an answer is kept")
    bytes_max: int = Field(default=256 << 20, ge=1 << 20, description="of all answers")
    answer_bytes_max: int = Field(default=4 << 20, ge=1 << 10, description="of one answer")
    grace_s: float = Field(
        default=30.0, ge=0, description="how long a call goes on when its callers hung up"
    )
    orphans_max: int = Field(default=256, ge=0, description="how many calls may go on so")
    lease_s: float = Field(
        default=10.0, gt=0, description="how long the calls of a dead gateway are waited for"
    )


class BatchesSpec(_Spec):
    """What files and batches may take; see :mod:`sage_gateway.batches`."""

    file_bytes_max: int = Field(default=100 << 20, ge=1 << 10, description="of an upload")
    tenant_bytes_max: int = Field(
        default=1 << 30, ge=1 << 10, description="of all files of a tenant; beyond: 413"
    )
    lines_max: int = Field(default=50_000, ge=1, description="of one batch")
    lines_at_once: int = Field(
        default=32, ge=1, le=4096, description="of a batch, and of all for one model"
    )
    open_max: int = Field(default=100, ge=1, description="batches of a tenant; beyond: 429")


class CacheSpec(_Spec):
    """What the response cache may take; see :mod:`sage_gateway.cache.response_cache`."""

    bytes_max: int = Field(default=64 << 20, ge=1 << 10, description="of all answers")
    answer_bytes_max: int = Field(default=1 << 20, ge=1 << 10, description="of one answer")


class LimitsSpec(_Spec):
    """What a key or a tenant may use; what is left out has no limit."""

    model_config = ConfigDict(strict=True)

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="of prompt and completion, guessed first, then put right"
    )
    tokens_per_day: int | None = Field(
        default=None, ge=1, description="never passed: the most that a call can cost is held back"
    )
    tokens_per_month: int | None = Field(default=None, ge=1, description="as tokens_per_day; UTC")


class TraceSpec(_Spec):
    """Where requests are recorded, without their texts, for ``sage pool replay``."""

    path: Path
    sample: float = Field(default=1.0, gt=0, le=1, description="the share that is recorded")


class PoolSpec(_Spec):
    """The desired state of the pool."""

    models: dict[Name, ModelSpec] = Field(min_length=1)
    collections: dict[str, CollectionSpec] = {}
    embedding_model: Name = Field(
        default="minilm", description="for collections that are not listed"
    )
    engine_grace_s: float = Field(
        default=120.0,
        ge=0,
        description="so long engines outlive a gateway that was killed, for the next to take over; "
        "0: they die with it",
    )
    engine_hosts: tuple[str, ...] = Field(
        default=(),
        description="hosts, addresses and networks where remote engines may be; see egress.py",
    )
    devices: dict[Name, DeviceSpec] = Field(
        default={}, description="shared by the models that name them"
    )
    budget: BudgetSpec = BudgetSpec()
    ledger: LedgerSpec = LedgerSpec()
    batches: BatchesSpec = BatchesSpec()
    cache: CacheSpec = CacheSpec()
    tenants: dict[Name, LimitsSpec] = Field(
        default={}, description="what all keys of a tenant may use together"
    )

    trace: TraceSpec | None = Field(
        default=None, description="$SAGE_POOL_TRACE, a path, stands in for it"
    )

    def embedding_of(self, collection: str) -> str:
        """The name of the model that embeds questions to ``collection``."""
        listed = self.collections.get(collection)
        return listed.model if listed else self.embedding_model
