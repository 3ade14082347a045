"""The file ``pool.yaml``: finding, loading and validating it, with every mistake in plain words."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sage_flink.common import ConfigError
from sage_gateway.config.pool_spec import PoolSpec

SHIPPED = Path(__file__).with_name("pool.yaml")

_WORDS: Mapping[str, str] = {  # by pydantic's error type, formatted with its context
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "missing": "is missing; add it",
    "string_pattern_mismatch": "a name has letters, digits and . _ : / - only, 128 at most, and "
    "starts with a letter or digit",
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


def load(path: Path, engines: Collection[str]) -> PoolSpec:
    """The pool in the file ``path``; every ``engine`` is one of ``engines``.

    Raises:
        ConfigError: the file is missing, is not YAML, or has wrong or unknown keys; the message
            lists all of them.
    """
    try:
        read = yaml.safe_load(path.read_text())
        spec = PoolSpec.model_validate({} if read is None else read)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give --pool a file that exists") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise config_error(str(path), [_describe(dict(e)) for e in error.errors()]) from error
    return validate(spec, engines, str(path))


def validate(spec: PoolSpec, engines: Collection[str], where: str) -> PoolSpec:
    """Return ``spec`` after checking that its parts fit together.

    Raises:
        ConfigError: they do not; the message lists every mistake in ``where``.
    """
    if wrong := list(_contradictions(spec, engines)):
        raise config_error(where, wrong)
    return spec


def config_error(where: str, mistakes: Sequence[str]) -> ConfigError:
    """An error that lists all mistakes: a single one on its line, several on a line each."""
    if len(mistakes) == 1:
        return ConfigError(f"{where}: {mistakes[0]}")
    return ConfigError("\n  ".join([f"{where}: {len(mistakes)} mistakes", *mistakes]))


def choose_file(path: Path | None, home: Path) -> Path:
    """The file to load: ``--pool``, else the one in ``$SAGE_HOME``, else the shipped one."""
    if path is not None:
        return path
    own = home / "pool.yaml"
    return own if own.exists() else SHIPPED


def _contradictions(spec: PoolSpec, engines: Collection[str]) -> Iterator[str]:
    known = ", ".join(sorted(engines))
    for name, model in spec.models.items():
        if model.engine not in engines:
            yield f"models.{name}.engine: {model.engine!r} is not one of {known}"
        if model.hedge_after_ms is not None and model.kind != "embedding":
            yield f"models.{name}.hedge_after_ms: only embedding models are hedged; remove it"
        if model.engine != "remote" and (model.key_env or model.remote_model or model.ca):
            yield f"models.{name}: key_env, remote_model and ca are for engine remote; remove them"
        if model.scaling is not None and model.scaling.min > model.scaling.max:
            yield f"models.{name}.scaling: min {model.scaling.min} is more than max"
        if model.device is not None and model.device not in spec.devices:
            listed = ", ".join(sorted(spec.devices)) or "none"
            where = f"models.{name}.device: {model.device!r}"
            yield f"{where} is not one of `devices`; there are {listed}"
    if spec.ledger.url and spec.ledger.connection:
        yield "ledger: give url or connection, not both"
    if spec.ledger.store == "redis" and not spec.ledger.url and not spec.ledger.connection:
        yield "ledger.url: is missing; store: redis needs it, as redis://HOST:PORT/0, or connection"
    names = [n for name, m in spec.models.items() for n in (name, *m.aliases)]
    for twice in sorted({n for n in names if names.count(n) > 1}):
        yield f"{twice!r} names two models; rename one or drop an alias"


def _describe(mistake: Mapping[str, Any]) -> str:
    kind = mistake["type"]
    where = ".".join(str(p) for p in mistake["loc"] if p != "[key]") or "the file"
    words = _WORDS[kind].format_map(mistake.get("ctx", {})) if kind in _WORDS else mistake["msg"]
    got = "" if kind in _NO_VALUE else f", got {mistake['input']!r:.80}"
    return f"{where}: {words}{got}"
