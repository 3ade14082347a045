"""A schema registry with Confluent's API: Confluent, Apicurio (``/apis/ccompat/v7``), Karapace.

Schemas by id never change, so each is fetched once a worker. Confluent's wire format of a message
is a zero byte, the schema's id in four bytes (big endian), and the payload.

A registry is a URL, or a connection of kind ``schema_registry`` by its name, with a login (a user
and password, or a token) and TLS (an authority, a certificate of the client). A refused login or
certificate ends the submission and the start of a job. While a job runs it is waited for, as a
registry that is away is: as a dead letter each message would name the same setting.

Source: Confluent documentation, "Schema Registry API Reference" and "Wire format".
"""

import functools
import struct
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from sage_connectors.formats.plain_json import require_bytes
from sage_connectors.schema_registry_connection import request
from sage_flink.common.connections import SchemaRegistryConnection
from sage_flink.common.connections_file import connection_to, named_connection, one_address
from sage_flink.common.errors import ConfigError, Rejected, StoreUnavailable

HEADER_BYTES = 5
LATEST = "latest"
Kind = Literal["AVRO", "PROTOBUF"]
#: Schemas held by a worker; each is some kilobytes.
SCHEMAS_MAX = 1_000


class Reference(NamedTuple):
    """A schema that another one imports by ``name``, a type of Avro or a file of Protobuf."""

    name: str
    text: str


class Schema(NamedTuple):
    """The text of a schema, and those that it imports, each after its own imports."""

    kind: str
    text: str
    references: tuple[Reference, ...] = ()


class Framed(NamedTuple):
    """A message in Confluent's wire format."""

    schema_id: int
    payload: bytes


def read_frame(raw: Any) -> Framed:
    """The schema's id and the payload of a message.

    Raises:
        Rejected: it is not in Confluent's wire format.
    """
    message = require_bytes(raw)
    if len(message) < HEADER_BYTES or message[0] != 0:
        raise Rejected(
            "not in the wire format of a schema registry (a zero byte, then the schema's id): "
            f"{message[:8]!r}"
        )
    return Framed(struct.unpack_from(">I", message, 1)[0], message[HEADER_BYTES:])


def frame(schema_id: int, payload: bytes) -> bytes:
    """The message in Confluent's wire format."""
    return struct.pack(">BI", 0, schema_id) + payload


def registry_definition(where: str, connection: str, url: str) -> SchemaRegistryConnection | None:
    """The connection of this name; None without one.

    Raises:
        ConfigError: there is no such connection, or a connection and a URL are given, or the URL is
            none of a server.
    """
    one_address(where, connection, "registry", url)
    parts = urlsplit(url)
    is_server = parts.scheme in ("http", "https") and bool(parts.hostname)
    if url and (not is_server or parts.username is not None):
        raise ConfigError(
            f"{where}: registry must be a URL such as http://127.0.0.1:8081, without a user and "
            f"password, got {parts._replace(netloc=parts.hostname or '').geturl()!r:.200}"
        )
    return named_connection(connection, SchemaRegistryConnection) if connection else None


def require_schema(where: str, schema: str, *, has_registry: bool) -> None:
    """Check that the schema of a message can be known.

    Raises:
        ConfigError: there is neither a schema nor a registry.
    """
    if not has_registry and schema in ("", LATEST):
        raise ConfigError(f"{where}: needs schema, or a schema registry as registry or connection")


def require_own_schema(where: str, schema: str) -> None:
    """Check that messages can be written.

    Raises:
        ConfigError: there is no schema, or that of the registry.
    """
    if schema in ("", LATEST):
        raise ConfigError(f"{where}: needs its own schema to be written")


def registry_of(
    definition: SchemaRegistryConnection | None, url: str
) -> SchemaRegistryConnection | None:
    """The definition, else the connection to ``url``; None without both."""
    return definition or (connection_to(url, SchemaRegistryConnection) if url else None)


def subjects(server: SchemaRegistryConnection) -> list[str]:
    """The names of the subjects that the login may see.

    Raises:
        ConfigError: a setting is wrong; the message names it.
        StoreUnavailable: the registry is away.
    """
    try:
        names = _request(server, "GET", "/subjects")
    except Rejected as error:
        raise ConfigError(f"{server.where}: url: {error}") from error
    if names is None:
        raise ConfigError(f"{server.where}: url: no schema registry is there: 404 for /subjects")
    return [str(name) for name in names]


def require_access(server: SchemaRegistryConnection) -> None:
    """Check that the registry accepts the connection; one that is away is left to the messages.

    Raises:
        ConfigError: it does not; the message names the setting.
    """
    with suppress(StoreUnavailable):
        subjects(server)


@functools.lru_cache(SCHEMAS_MAX)
def schema_by_id(server: SchemaRegistryConnection, schema_id: int, kind: Kind) -> Schema:
    """The schema of this id.

    Raises:
        Rejected: the registry does not know the id, or it is of another kind.
        StoreUnavailable: the registry is away, or refuses the connection.
    """
    reply = _get(server, f"/schemas/ids/{schema_id}")
    if reply is None:
        raise Rejected(f"{server.where} does not know schema {schema_id}")
    schema = _schema(server, reply)
    if schema.kind != kind:
        raise Rejected(f"schema {schema_id} of {server.where} is {schema.kind}, not {kind}")
    return schema


def latest(server: SchemaRegistryConnection, subject: str) -> tuple[int, Schema]:
    """The id and the text of the newest schema of ``subject``.

    Raises:
        Rejected: there is no such subject.
        StoreUnavailable: the registry is away, or refuses the connection.
    """
    reply = _get(server, f"/subjects/{quote(subject, safe='')}/versions/latest")
    if reply is None:
        raise Rejected(f"{server.where} has no subject {subject!r}")
    return int(reply["id"]), _schema(server, reply)


def schema_id(
    server: SchemaRegistryConnection, subject: str, text: str, kind: Kind, *, register: bool
) -> int:
    """The id of the schema in ``subject``: registered where it is absent, else only looked up.

    Raises:
        ConfigError: the registry refuses the schema or the connection, or does not know the schema
            and ``register`` is false.
        StoreUnavailable: the registry is away.
    """
    path = f"/subjects/{quote(subject, safe='')}"
    body = {"schema": text} if kind == "AVRO" else {"schema": text, "schemaType": kind}
    try:
        reply = _request(server, "POST", f"{path}/versions" if register else path, body)
    except Rejected as error:
        raise ConfigError(f"schema of subject {subject!r}: {error}") from error
    if reply is None:
        raise ConfigError(
            f"{server.where} does not know this schema in subject {subject!r}; "
            "register it there, or set register to true"
        )
    return int(reply["id"])


def _schema(server: SchemaRegistryConnection, reply: Any) -> Schema:
    found: dict[str, str] = {}
    _resolve(server, reply, found)
    references = tuple(Reference(name, text) for name, text in found.items())
    return Schema(reply.get("schemaType") or "AVRO", reply["schema"], references)


def _resolve(server: SchemaRegistryConnection, reply: Any, found: dict[str, str]) -> None:
    """Add what the schema imports to ``found``, imports first."""
    for each in reply.get("references") or ():
        if each["name"] not in found:
            subject, version = quote(each["subject"], safe=""), int(each["version"])
            below = _get(server, f"/subjects/{subject}/versions/{version}")
            if below is None:
                raise Rejected(f"{server.where} has no {subject} {version}")
            _resolve(server, below, found)
            found[each["name"]] = below["schema"]


def _get(server: SchemaRegistryConnection, path: str) -> Any:
    """As ``_request``, for a message: a wrong setting is a reason to wait, not its failure."""
    try:
        return _request(server, "GET", path)
    except ConfigError as error:
        raise StoreUnavailable(str(error)) from error


def _request(server: SchemaRegistryConnection, method: str, path: str, body: Any = None) -> Any:
    """The reply's JSON; None where the registry answers that there is no such thing."""
    reply = request(server, method, path, body)
    if reply.status_code == 404:
        return None
    if reply.status_code in (400, 409, 422):
        raise Rejected(f"{server.where} refuses it: {reply.status_code} {reply.text[:500]}")
    answer = f"{server.where} answers {reply.status_code}: {reply.text[:200]}"
    if reply.status_code != 200:
        raise StoreUnavailable(answer)
    try:
        return reply.json()
    except ValueError as error:
        raise StoreUnavailable(answer) from error
