"""What the pool should be: ``pool.yaml``, checked. A spec is data; nothing here starts anything."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from sage_flink.common import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Kind = Literal["chat", "embedding"]

SHIPPED = Path(__file__).with_name("pool.yaml")


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HealthSpec(_Spec):
    """When a replica counts as ready, hung or lost, and how fast it is started again."""

    interval_s: float = Field(default=1.0, gt=0)
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
    source: str = Field(description="file or folder below the folder of models, or absolute")
    aliases: tuple[Name, ...] = ()
    replicas: int = Field(default=1, ge=1, le=64)
    slots: int = Field(default=4, ge=1, le=1024)
    context_tokens: int = Field(default=2048, ge=16)
    threads: int = Field(default=1, ge=1, le=256)
    concurrency: int = Field(default=128, ge=1, le=4096)
    timeout_s: float = Field(default=300.0, gt=0)
    dim: int | None = Field(
        default=None, ge=1, description="size of the vectors of an embedding model"
    )
    arguments: tuple[str, ...] = Field(
        default=(), description="appended to the engine's command line"
    )
    health: HealthSpec = HealthSpec()


class CollectionSpec(_Spec):
    """Which embedding model a collection's vectors come from."""

    model: Name


class PoolSpec(_Spec):
    """The desired state of the pool."""

    models: dict[Name, ModelSpec] = Field(min_length=1)
    collections: dict[str, CollectionSpec] = {}
    embedding_model: Name = Field(
        default="minilm", description="for collections that are not listed"
    )

    def embedding_of(self, collection: str) -> str:
        """The name of the model that embeds questions to ``collection``."""
        listed = self.collections.get(collection)
        return listed.model if listed else self.embedding_model


def load(path: Path, engines: Collection[str]) -> PoolSpec:
    """The pool that ``path`` describes; every ``engine`` is one of ``engines``.

    Raises:
        ConfigError: the file is missing, is not YAML, or has a wrong or unknown key (named).
    """
    try:
        spec = PoolSpec.model_validate(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give --pool a file that exists") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error)}") from error
    for name, model in spec.models.items():
        if model.engine not in engines:
            known = ", ".join(sorted(engines))
            raise ConfigError(f"{path}: models.{name}.engine: {model.engine!r} is none of {known}")
    names = [n for name, m in spec.models.items() for n in (name, *m.aliases)]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ConfigError(f"{path}: {twice[0]!r} names two models; rename one or drop an alias")
    return spec


def chosen_file(given: Path | None, home: Path) -> Path:
    """The file to load: ``--pool``, else the one in ``$SAGE_HOME``, else the shipped one."""
    if given is not None:
        return given
    own = home / "pool.yaml"
    return own if own.exists() else SHIPPED


def _first(error: ValidationError) -> str:
    found: dict[str, Any] = dict(error.errors()[0])
    where = ".".join(str(part) for part in found["loc"]) or "the file"
    if found["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or correct its spelling"
    return f"{where}: {found['msg']}, got {found['input']!r:.80}"
