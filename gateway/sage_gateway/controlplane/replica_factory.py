"""From specs to models: the launch of each model's replicas, and the footprint of one."""

import os
import shutil
from collections.abc import Collection, Mapping
from math import ceil
from pathlib import Path

from sage_flink.common import ConfigError
from sage_gateway.capacity import model_size
from sage_gateway.capacity.memory_budget import MIB, Footprint
from sage_gateway.config.pool_file import config_error, validate
from sage_gateway.config.pool_spec import ModelSpec, PoolSpec
from sage_gateway.engines import Engine, Launch, process
from sage_gateway.engines.egress import Target, target
from sage_gateway.models.model import Model


def models_of(spec: PoolSpec, engines: Mapping[str, Engine], folder: Path) -> dict[str, Model]:
    """Every model by its name; relative sources are below ``folder``.

    Raises:
        ConfigError: models cannot be started as specified; the message lists all of them.
    """
    validate(spec, engines, "pool")
    found: dict[str, Model] = {}
    wrong: list[str] = []
    for name, model in spec.models.items():
        try:
            found[name] = model_of(name, model, engines[model.engine], folder, spec.engine_hosts)
        except ConfigError as error:
            wrong.append(f"models.{name}: {error}")
    if wrong:
        raise config_error("pool", wrong)
    return found


def model_of(
    name: str, spec: ModelSpec, engine: Engine, folder: Path, hosts: Collection[str] = ()
) -> Model:
    """One model, validated; ``hosts`` are the allowed hosts of remote engines.

    Raises:
        ConfigError: it cannot be started as specified.
    """
    if spec.kind not in engine.kinds:
        serves = " and ".join(sorted(engine.kinds))
        raise ConfigError(f"engine {spec.engine} serves kind {serves}, not {spec.kind}")
    if engine.remote:
        launch = Launch(name, spec, None, 0, Path(), _target(spec, hosts))
        return Model(name, spec, engine, launch, _footprint(launch))
    source = _source(spec, engine, folder)
    python = process.interpreter(engine.environment, engine.setup_script)
    launch = Launch(name, spec, source, process.free_port(), python)
    _check_program(engine, launch)
    return Model(name, spec, engine, launch, _footprint(launch))


def _footprint(launch: Launch) -> Footprint:
    """Of one replica; an engine without weights counts as 0."""
    spec, source = launch.spec, launch.source
    if source is None:
        return Footprint(launch.model, 1, 0, 0, 0)
    if spec.gpu_memory_mb:
        return Footprint(launch.model, 1, spec.threads, 0, 0, spec.gpu_memory_mb)
    tokens = spec.context_tokens * spec.slots if spec.kind == "chat" else 0
    kv_mb = ceil(tokens * model_size.kv_bytes(source) / MIB)
    weights_mb = ceil(model_size.size_bytes(source) / MIB)
    return Footprint(launch.model, 1, spec.threads, weights_mb, kv_mb)


def _target(spec: ModelSpec, hosts: Collection[str]) -> Target:
    if spec.source is None:
        raise ConfigError("engine remote needs a source, its base URL as https://HOST/v1")
    if spec.key_env and spec.key_env not in os.environ:
        raise ConfigError(f"key_env: there is no variable {spec.key_env}; set it, or remove this")
    return target(spec.source, hosts, spec.key_env, spec.ca)


def _source(spec: ModelSpec, engine: Engine, folder: Path) -> Path | None:
    if not engine.weights:
        if spec.source is not None:
            raise ConfigError(f"engine {spec.engine} has no weights; remove source")
        return None
    if spec.source is None:
        raise ConfigError(f"engine {spec.engine} needs a source, the file or folder of the weights")
    source = folder / spec.source
    if not source.exists():
        script = engine.setup_script
        make = (
            f"run `bash {script}`, or correct it" if script else "correct it, or download it there"
        )
        raise ConfigError(f"no source {source}; {make}")
    return source


def _check_program(engine: Engine, launch: Launch) -> None:
    name = launch.spec.engine
    try:
        program = engine.argv(launch)[0]
    except ConfigError:
        raise
    except Exception as error:  # the engine's own code
        raise ConfigError(f"engine {name} gives no command line: {error!r}") from error
    if shutil.which(program, path=engine.env.get("PATH")) is None:
        raise ConfigError(f"no program {program} for engine {name}; install it or correct its path")
