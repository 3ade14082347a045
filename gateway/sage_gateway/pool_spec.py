"""What the pool should be: ``pool.yaml``, checked. A spec is data; nothing here starts anything."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from sage_flink.common import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Kind = Literal["chat", "embedding"]
Routing = Literal["least_loaded", "round_robin", "power_of_two", "prefix", "session", "key_group"]
Scheduling = Literal["fifo", "priority", "slo", "fair", "cost", "adaptive"]

CONCURRENCY_MAX = 256  # of a replica whose concurrency is measured
SHIPPED = Path(__file__).with_name("pool.yaml")

_WORDS: Mapping[str, str] = {  # by pydantic's name of the mistake, with its context filled in
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "missing": "is missing; add it",
    "string_pattern_mismatch": "a name has letters, digits and . _ : / - only, 128 at most, and "
    "begins with a letter or digit",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be a text; put it in quotes",
    "tuple_type": "must be a list",
    "dict_type": "must have keys and values",
    "model_type": "must have keys and values",
}
_NO_VALUE = {"extra_forbidden", "missing", "too_short"}


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


class LedgerSpec(_Spec):
    """How calls that name an id are answered once; see :mod:`sage_gateway.ledger.once`."""

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


class LimitsSpec(_Spec):
    """What a key or a tenant may use; what is left out has no limit."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="of prompt and completion, guessed first, then put right"
    )
    tokens_per_day: int | None = Field(
        default=None, ge=1, description="never passed: the most that a call can cost is held back"
    )
    tokens_per_month: int | None = Field(default=None, ge=1, description="as tokens_per_day; UTC")


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
    budget: BudgetSpec = BudgetSpec()
    ledger: LedgerSpec = LedgerSpec()
    tenants: dict[Name, LimitsSpec] = Field(
        default={}, description="what all keys of a tenant may use together"
    )

    def embedding_of(self, collection: str) -> str:
        """The name of the model that embeds questions to ``collection``."""
        listed = self.collections.get(collection)
        return listed.model if listed else self.embedding_model


def load(path: Path, engines: Collection[str]) -> PoolSpec:
    """The pool that ``path`` describes; every ``engine`` is one of ``engines``.

    Raises:
        ConfigError: the file is missing, is not YAML, or has wrong or unknown keys (all named).
    """
    try:
        read = yaml.safe_load(path.read_text())
        spec = PoolSpec.model_validate({} if read is None else read)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give --pool a file that exists") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise mistakes(str(path), [_plain(dict(e)) for e in error.errors()]) from error
    return coherent(spec, engines, str(path))


def coherent(spec: PoolSpec, engines: Collection[str], where: str) -> PoolSpec:
    """``spec``, whose parts fit together.

    Raises:
        ConfigError: they do not; all that is wrong ``where`` is named.
    """
    if wrong := list(_contradictions(spec, engines)):
        raise mistakes(where, wrong)
    return spec


def mistakes(where: str, found: Sequence[str]) -> ConfigError:
    """The error that tells all of ``found``: one in its line, several in a line each."""
    if len(found) == 1:
        return ConfigError(f"{where}: {found[0]}")
    return ConfigError("\n  ".join([f"{where}: {len(found)} mistakes", *found]))


def chosen_file(given: Path | None, home: Path) -> Path:
    """The file to load: ``--pool``, else the one in ``$SAGE_HOME``, else the shipped one."""
    if given is not None:
        return given
    own = home / "pool.yaml"
    return own if own.exists() else SHIPPED


def _contradictions(spec: PoolSpec, engines: Collection[str]) -> Iterator[str]:
    known = ", ".join(sorted(engines))
    for name, model in spec.models.items():
        if model.engine not in engines:
            yield f"models.{name}.engine: {model.engine!r} is none of {known}"
        if model.hedge_after_ms is not None and model.kind != "embedding":
            yield f"models.{name}.hedge_after_ms: only embedding models are hedged; remove it"
        if model.engine != "remote" and (model.key_env or model.remote_model):
            yield f"models.{name}: key_env and remote_model are for engine remote; remove them"
    if spec.ledger.store == "redis" and not spec.ledger.url:
        yield "ledger.url: is missing; store: redis needs it, as redis://HOST:PORT/0"
    names = [n for name, m in spec.models.items() for n in (name, *m.aliases)]
    for twice in sorted({n for n in names if names.count(n) > 1}):
        yield f"{twice!r} names two models; rename one or drop an alias"


def _plain(mistake: Mapping[str, Any]) -> str:
    kind = mistake["type"]
    where = ".".join(str(p) for p in mistake["loc"] if p != "[key]") or "the file"
    words = _WORDS[kind].format_map(mistake.get("ctx", {})) if kind in _WORDS else mistake["msg"]
    got = "" if kind in _NO_VALUE else f", got {mistake['input']!r:.80}"
    return f"{where}: {words}{got}"
