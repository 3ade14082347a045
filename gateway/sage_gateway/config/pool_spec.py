"""The schema of ``pool.yaml``, with defaults and limits. A spec is data: it starts no process."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from sage_gateway.config.spec import Spec
from sage_gateway.config.storage_spec import BatchesSpec, CacheSpec, LedgerSpec

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Kind = Literal["chat", "embedding", "rerank"]
Routing = Literal["least_loaded", "round_robin", "power_of_two", "prefix", "session", "key_group"]
Scheduling = Literal["fifo", "priority", "slo", "fair", "cost", "adaptive"]

CONCURRENCY_MAX = 256  # of a replica whose concurrency is measured


def _auto(value: object) -> object:
    """None for ``auto``; a number is validated afterwards."""
    if value is None or isinstance(value, int | float):
        return value
    if value == "auto":
        return None
    raise PydanticCustomError("concurrency", "must be a whole number, or auto")


Concurrency = Annotated[Annotated[int, Field(ge=1, le=4096)] | None, BeforeValidator(_auto)]


class HealthSpec(Spec):
    """When a replica counts as ready, hung or lost, and how fast it is started again.

    A replica that hangs gets no more requests, while another is healthy, after ``interval_s +
    suspect_s`` at most; it is restarted only after ``missed_max`` checks that took ``timeout_s``,
    because a busy replica may be slow to answer and must not be killed for it.
    """

    interval_s: float = Field(default=1.0, gt=0)
    # llama.cpp and onnxruntime, fully loaded on two shared cores, took 0.23 s at most.
    suspect_s: float = Field(
        default=0.8,
        gt=0,
        description="a check that takes longer makes the replica the last choice of routing",
    )
    timeout_s: float = Field(default=5.0, gt=0)
    missed_max: int = Field(default=3, ge=1)
    start_timeout_s: float = Field(default=120.0, gt=0)
    backoff_first_s: float = Field(default=0.2, gt=0)
    backoff_max_s: float = Field(default=30.0, gt=0)
    stable_s: float = Field(
        default=30.0, gt=0, description="after this time in READY the back-off is reset"
    )


class ScalingSpec(Spec):
    """How many replicas a model may have, and when; see :mod:`sage_gateway.autoscaling.decide`."""

    min: int = Field(
        default=1,
        ge=0,
        le=64,
        description="0: the model is scaled to zero after idle_s without a request",
    )
    max: int = Field(ge=1, le=64)
    target_queue_wait_ms: float = Field(
        default=1000.0, gt=0, description="p99, background excluded"
    )
    target_ttft_ms: float | None = Field(default=None, gt=0, description="p99 of streams")
    target_tpot_ms: float | None = Field(default=None, gt=0, description="p99 of streams")
    up_cooldown_s: float = Field(
        default=10.0, ge=0, description="the least time between a change and an added replica"
    )
    down_cooldown_s: float = Field(
        default=60.0, ge=0, description="the least time between a change and a removed replica"
    )
    idle_s: float = Field(default=300.0, gt=0)
    dry_run: bool = Field(default=False, description="decisions are logged and not applied")


class ModelSpec(Spec):
    """One model: engine, weights and limits. Limits are per replica."""

    engine: str
    kind: Kind
    source: str | None = Field(
        default=None,
        description="the weights, if the engine has any: below the folder of models, or absolute; "
        "for a remote engine its base URL",
    )
    key_env: str = Field(
        default="",
        pattern=r"^([A-Z][A-Z0-9_]*_API_KEY)?$",
        description="the environment variable with the key of a remote engine",
    )
    remote_model: str = Field(default="", description="the name of the model at a remote engine")
    ca: str = Field(
        default="",
        description="the PEM file of the authorities of a remote engine",
    )
    aliases: tuple[Name, ...] = ()
    replicas: int = Field(default=1, ge=1, le=64)
    slots: int = Field(default=4, ge=1, le=1024)
    context_tokens: int = Field(default=2048, ge=16)
    threads: int = Field(default=1, ge=1, le=256)
    gpu_memory_mb: int = Field(
        default=0, ge=0, description="GPU memory of a replica, for the budget"
    )
    concurrency: Concurrency = Field(
        default=128, description="requests in flight per replica; 'auto': measured"
    )
    device: Name | None = Field(
        default=None, description="one of `devices`, which it shares with other models"
    )
    share: float = Field(
        default=1.0, gt=0, le=1000, description="its weight among the models of the device"
    )
    policy: Scheduling = Field(
        default="fifo", description="the order in which queued requests are dispatched"
    )
    queue_max: int = Field(
        default=1024, ge=0, le=100_000, description="queued requests at most; beyond: 429"
    )
    queue_timeout_s: float = Field(
        default=30.0, gt=0, description="queued this long at most; then: 429"
    )
    timeout_s: float = Field(default=300.0, gt=0)
    dim: int | None = Field(
        default=None, ge=1, description="size of the vectors of an embedding model"
    )
    arguments: tuple[str, ...] = Field(
        default=(), description="appended to the engine's command line"
    )
    routing: Routing = Field(
        default="least_loaded",
        description="how a request's replica is chosen: by load; by the prefix of its prompt; "
        "by its header x-session-id (session) or x-key-group (key_group)",
    )
    hedge_after_ms: float | None = Field(
        default=None,
        gt=0,
        description="for embedding models: send the request to a second replica after this time; "
        "the first response is used. Off by default",
    )
    health: HealthSpec = HealthSpec()
    scaling: ScalingSpec | None = Field(
        default=None,
        description="without it `replicas` is fixed, with it the initial number",
    )

    @property
    def concurrency_max(self) -> int:
        """The most requests that a replica is sent at a time."""
        return self.concurrency or CONCURRENCY_MAX


#: The tenant of this machine's own keys.
LOCAL = "local"


class CollectionSpec(Spec):
    """A collection that can be searched."""

    model: Name | None = Field(
        default=None, description="which embedded its vectors; by default `embedding_model`"
    )
    tenants: tuple[str, ...] = Field(
        default=(),
        description="whose keys find it; for all others it does not exist. Empty: everyone's. The "
        "keys of this machine (tenant `local`) find every collection",
    )


class BudgetSpec(Spec):
    """What all replicas together may take; the default is what the machine has."""

    cpu_threads: int | None = Field(
        default=None, ge=1, description="more than the cores of the machine is only a warning"
    )
    memory_mb: int | None = Field(default=None, ge=1)
    gpu_memory_mb: int | None = Field(default=None, ge=1)


class DeviceSpec(Spec):
    """A device that several models share; see :mod:`sage_gateway.scheduling.shared_device`."""

    concurrency: int = Field(ge=1, le=4096, description="requests in flight of all its models")


def whole(value: object) -> object:
    """A whole number that is written as ``5.0``, which JSON schema calls an integer, as an int."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: No text and no truth value is taken for a number.
Limit = Annotated[int, Strict(), Field(ge=1, le=1 << 53), BeforeValidator(whole)]


class LimitsSpec(Spec):
    """Limits of a key or a tenant; a limit that is left out does not apply."""

    model_config = ConfigDict(strict=True)

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = Field(
        default=None, description="prompt and completion, estimated first, then corrected"
    )
    tokens_per_day: Limit | None = Field(
        default=None, description="never exceeded: the most that a call can cost is reserved"
    )
    tokens_per_month: Limit | None = Field(default=None, description="as tokens_per_day; UTC")


class TraceSpec(Spec):
    """The trace of requests, without their texts, for ``sage pool replay``."""

    path: Path
    sample: float = Field(
        default=1.0, gt=0, le=1, description="the share of requests that is recorded"
    )


class PoolSpec(Spec):
    """The initial state of the pool."""

    models: dict[Name, ModelSpec] = Field(min_length=1)
    collections: dict[str, CollectionSpec] = Field(default_factory=dict)
    embedding_model: Name = Field(
        default="minilm", description="for collections that name no model, or are not listed"
    )
    shared_collections: bool = Field(
        default=True,
        description="whether keys of every tenant find collections that are not listed",
    )
    engine_grace_s: float = Field(
        default=120.0,
        ge=0,
        description="how long engines outlive a killed gateway, for the next one to take over; "
        "0: they are killed with it",
    )
    engine_hosts: tuple[str, ...] = Field(
        default=(),
        description="allowed hosts, addresses and networks of remote engines; see egress.py",
    )
    origins: tuple[str, ...] = Field(
        default=(),
        description="sites whose pages may call the gateway (CORS): https://HOST, or * for all",
    )
    devices: dict[Name, DeviceSpec] = Field(
        default={}, description="devices that models share by naming them in `device`"
    )
    budget: BudgetSpec = BudgetSpec()
    ledger: LedgerSpec = LedgerSpec()
    batches: BatchesSpec = BatchesSpec()
    cache: CacheSpec = CacheSpec()
    tenants: dict[Name, LimitsSpec] = Field(
        default={}, description="what all keys of a tenant may use together"
    )

    trace: TraceSpec | None = Field(
        default=None, description="$SAGE_POOL_TRACE, a path, is an alternative to it"
    )

    def embedding_of(self, collection: str) -> str:
        """The name of the model that embeds queries to ``collection``."""
        listed = self.collections.get(collection)
        return listed.model or self.embedding_model if listed else self.embedding_model

    def finds(self, tenant: str, collection: str) -> bool:
        """Whether a request of ``tenant``, empty for one of none, may search ``collection``."""
        listed = self.collections.get(collection)
        if tenant in {"", LOCAL}:
            return True
        if listed is None:
            return self.shared_collections
        return not listed.tenants or tenant in listed.tenants
