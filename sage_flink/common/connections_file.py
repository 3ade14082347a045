"""Where connections are defined, and how one is found: by its name, or by the address of a server.

``$SAGE_HOME/connections.yaml`` (or ``$SAGE_CONNECTIONS``) maps a name to a connection, and so does
the key ``connections`` of ``stack.json``. The names ``kafka``, ``milvus``, ``influxdb`` and
``gateway`` are what a pipeline uses that names no server at all: they take the place of the
addresses in the settings.

A definition is read where the pipeline is built, and travels with the graph: a worker on another
machine has no such file. That of a pipeline that names no server is read on the worker, like the
addresses in the settings.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sage_flink.common.connections import Connection, InfluxdbConnection, parse
from sage_flink.common.errors import ConfigError
from sage_flink.common.settings import Settings, sage_home

C = TypeVar("C", bound=Connection)


def connections_file() -> Path:
    """Where the user's connections are defined; the file may not exist."""
    named = os.environ.get("SAGE_CONNECTIONS")
    return Path(named).absolute() if named else sage_home() / "connections.yaml"


def load_connections() -> dict[str, tuple[Connection, Path]]:
    """Every connection by its name, and the file that defines it; the user's over the stack's.

    Raises:
        ConfigError: a file cannot be read, or a definition is wrong; the message names the field
            and never what was written there.
    """
    stack, file = sage_home() / "stack.json", connections_file()
    if "SAGE_CONNECTIONS" in os.environ and not file.exists():
        raise ConfigError(f"{file} does not exist; SAGE_CONNECTIONS names it")
    found = {}
    for path, text in ((stack, _read(stack)), (file, _read(file))):
        named = text.get("connections", {}) if path == stack else text
        if not isinstance(named, dict):
            raise ConfigError(f"{path}: must be a mapping from a name to a connection")
        found.update({name: (parse(name, raw, str(path)), path) for name, raw in named.items()})
    return found


def named_connection(name: str, kind: type[C]) -> C:
    """The connection called ``name``.

    Raises:
        ConfigError: there is none of this name and kind; the message lists those there are.
    """
    known = {key: found for key, (found, _) in load_connections().items()}
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"no connection {name!r} in {connections_file()}; there are: {names}")
    found = known[name]
    if not isinstance(found, kind):
        wanted = kind.model_fields["kind"].default
        raise ConfigError(f"connection {name!r} is one of kind {found.kind}; {wanted} is needed")
    return found


def own_addresses() -> dict[str, str]:
    """The fields of the settings that connections of the stack's own names take the place of.

    Raises:
        ConfigError: as :func:`load_connections`.
    """
    found: dict[str, str] = {}
    for name, (connection, _) in load_connections().items():
        if name == connection.kind and connection.setting:
            found[connection.setting] = connection.address
            if isinstance(connection, InfluxdbConnection) and connection.org:
                found["influxdb_org"] = connection.org
    return found


def connection_to(address: str, kind: type[C]) -> C:
    """The connection to ``address``, or to the settings' server where that is empty.

    The connection that is called as its kind is used for its own address only: no other server
    gets its secrets.

    Raises:
        ConfigError: the settings cannot be read, or ``address`` is none.
    """
    name = kind.model_fields["kind"].default
    address = address or getattr(Settings.load(), kind.setting)
    own, _ = load_connections().get(name, (None, None))
    if isinstance(own, kind) and address.rstrip("/") == own.address.rstrip("/"):
        return own
    made = parse("", {"kind": name, kind.address_field: address})
    assert isinstance(made, kind)
    return made


def one_address(where: str, connection: str, field: str, address: str) -> None:
    """Check that a spec names a connection or an address.

    Raises:
        ConfigError: it names both.
    """
    if not isinstance(connection, str):
        raise ConfigError(f"{where}: connection must be the name of one, got {connection!r:.80}")
    if connection and address:
        raise ConfigError(f"{where}: give connection or {field}, not both")


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.exists():
            return {}
        text = path.read_bytes()
        read = msgspec.json.decode(text) if path.suffix == ".json" else msgspec.yaml.decode(text)
    except (OSError, ValueError, msgspec.MsgspecError):
        # Without the parser's own words, which may quote the line: it may hold a secret.
        message = f"{path}: cannot be read as {path.suffix[1:].upper() or 'YAML'}"
    else:
        if read is None or isinstance(read, Mapping):
            return dict(read or {})
        message = f"{path}: must be a mapping from a name to a connection"
    raise ConfigError(message)
