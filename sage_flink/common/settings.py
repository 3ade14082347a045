"""Settings: addresses of the servers, from the environment, the local stack, or the defaults.

``sage up`` writes ``stack.json`` (URLs and ports) and ``keys/`` (one file a secret, mode 0600)
into the folder that :func:`sage_home` names. Secrets are read where they are used, never put into
a graph.
"""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sage_flink.common.errors import ConfigError


def sage_home() -> Path:
    """The folder of everything that runs: ``$SAGE_HOME``, else ``.sage`` of the checkout.

    Raises:
        ConfigError: there is no checkout, and the user has no home folder.
    """
    if named := os.environ.get("SAGE_HOME"):
        return Path(named).absolute()
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").exists():
        return checkout / ".sage"
    return _user_folder("SAGE_HOME") / ".local" / "share" / "sage"


def sage_cache() -> Path:
    """The folder of what is built or fetched once a user: ``$SAGE_CACHE``, else the XDG cache.

    Raises:
        ConfigError: none is set, and the user has no home folder.
    """
    if named := os.environ.get("SAGE_CACHE"):
        return Path(named).absolute()
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "sage"
    return _user_folder("SAGE_CACHE") / ".cache" / "sage"


def _user_folder(instead: str) -> Path:
    """The user's own folder.

    Raises:
        ConfigError: the user has none, such as a bare number in a container.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise ConfigError(f"this user has no home folder; set HOME or {instead}") from error


class Settings(BaseModel):
    """Addresses of the servers that a pipeline talks to.

    Each field can be set by the environment variable ``SAGE_<FIELD>`` in capitals. ``gateway_url``
    may name several gateways, with commas between: calls spread over them. A connection called
    ``kafka``, ``milvus``, ``influxdb`` or ``gateway`` takes the place of the address.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    gateway_url: str = "http://127.0.0.1:8888"
    kafka_servers: str = "127.0.0.1:9092"
    flink_url: str = "http://127.0.0.1:8081"
    milvus_url: str = "http://127.0.0.1:19530"
    influxdb_url: str = "http://127.0.0.1:8086"
    influxdb_org: str = "sage"
    home: Path = Field(default_factory=sage_home)
    models: Path = Field(default_factory=lambda: sage_cache() / "models")

    @classmethod
    def load(cls) -> "Settings":
        """Environment over connections over ``stack.json`` over the defaults.

        Raises:
            ConfigError: ``stack.json`` cannot be read, a value is of the wrong type, or a
                connection is wrong.
        """
        # Here, because that module finds its file by this one.
        from sage_flink.common.connections_file import own_addresses

        notes = sage_home() / "stack.json"
        values: dict[str, Any] = {}
        try:
            if notes.exists():
                values = json.loads(notes.read_text())
            env = {
                f: os.environ[f"SAGE_{f.upper()}"]
                for f in cls.model_fields
                if f"SAGE_{f.upper()}" in os.environ
            }
            return cls(**{**values, **own_addresses(), **env})
        except (OSError, ValueError, TypeError, ValidationError) as error:
            raise ConfigError(
                f"settings in {notes}: {error}; run `sage up` to write them again"
            ) from error

    @property
    def gateway_urls(self) -> tuple[str, ...]:
        """Every gateway, at least one, without a slash at the end."""
        return tuple(url.strip().rstrip("/") for url in self.gateway_url.split(","))

    def secret(self, name: str) -> str:
        """The secret ``name`` (``gateway`` or ``influxdb``): ``SAGE_<NAME>_KEY``, else its file.

        Raises:
            ConfigError: there is neither.
        """
        if value := os.environ.get(f"SAGE_{name.upper()}_KEY"):
            return value
        path = self.home / "keys" / name
        try:
            return path.read_text().strip()
        except OSError as error:
            raise ConfigError(
                f"no key for {name}: set SAGE_{name.upper()}_KEY, "
                f"or run `sage up`, which writes {path}"
            ) from error
