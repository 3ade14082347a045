"""A schema registry with Confluent's API: Confluent, Apicurio (``/apis/ccompat/v7``), Karapace.

Schemas by id never change, so each is fetched once a worker. Confluent's wire format of a message
is a zero byte, the schema's id in four bytes (big endian), and the payload.

Source: Confluent documentation, "Schema Registry API Reference" and "Wire format".
"""

import functools
import struct
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from sage_connectors.formats.plain_json import require_bytes
from sage_flink.common.errors import ConfigError, Rejected, StoreUnavailable
from sage_flink.common.proxies import is_loopback

TIMEOUT_S = 10.0
HEADER_BYTES = 5
LATEST = "latest"
Kind = Literal["AVRO", "PROTOBUF"]
_CONTENT = "application/vnd.schemaregistry.v1+json"
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


def framed(raw: Any) -> Framed:
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


def require_url(where: str, url: str) -> None:
    """Check that it is the URL of a server.

    Raises:
        ConfigError: it is not.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.password is not None:
        raise ConfigError(
            f"{where}: registry must be a URL such as http://127.0.0.1:8081, without a password, "
            f"got {parts._replace(netloc=parts.hostname or '').geturl()!r:.200}"
        )


@functools.lru_cache(SCHEMAS_MAX)
def schema_by_id(url: str, schema_id: int, kind: Kind) -> Schema:
    """The schema of this id.

    Raises:
        Rejected: the registry does not know the id, or it is of another kind.
        StoreUnavailable: the registry is away.
    """
    reply = _request(url, "GET", f"/schemas/ids/{schema_id}")
    if reply is None:
        raise Rejected(f"the schema registry at {url} does not know schema {schema_id}")
    schema = _schema(url, reply)
    if schema.kind != kind:
        raise Rejected(f"schema {schema_id} of {url} is {schema.kind}, not {kind}")
    return schema


def latest(url: str, subject: str) -> tuple[int, Schema]:
    """The id and the text of the newest schema of ``subject``.

    Raises:
        Rejected: there is no such subject.
        StoreUnavailable: the registry is away.
    """
    reply = _request(url, "GET", f"/subjects/{quote(subject, safe='')}/versions/latest")
    if reply is None:
        raise Rejected(f"the schema registry at {url} has no subject {subject!r}")
    return int(reply["id"]), _schema(url, reply)


def registered(url: str, subject: str, text: str, kind: Kind, *, register: bool) -> int:
    """The id of the schema in ``subject``: registered where it is absent, else only looked up.

    Raises:
        ConfigError: the registry refuses the schema, or does not know it and ``register`` is false.
        StoreUnavailable: the registry is away.
    """
    path = f"/subjects/{quote(subject, safe='')}"
    body = {"schema": text} if kind == "AVRO" else {"schema": text, "schemaType": kind}
    try:
        reply = _request(url, "POST", f"{path}/versions" if register else path, body)
    except Rejected as error:
        raise ConfigError(f"schema of subject {subject!r}: {error}") from error
    if reply is None:
        raise ConfigError(
            f"the schema registry at {url} does not know this schema in subject {subject!r}; "
            "register it there, or set register to true"
        )
    return int(reply["id"])


def _schema(url: str, reply: Any) -> Schema:
    found: dict[str, str] = {}
    _resolve(url, reply, found)
    references = tuple(Reference(name, text) for name, text in found.items())
    return Schema(reply.get("schemaType") or "AVRO", reply["schema"], references)


def _resolve(url: str, reply: Any, found: dict[str, str]) -> None:
    """Add what the schema imports to ``found``, imports first."""
    for each in reply.get("references") or ():
        if each["name"] not in found:
            subject, version = quote(each["subject"], safe=""), int(each["version"])
            below = _request(url, "GET", f"/subjects/{subject}/versions/{version}")
            if below is None:
                raise Rejected(f"the schema registry at {url} has no {subject} {version}")
            _resolve(url, below, found)
            found[each["name"]] = below["schema"]


def _request(url: str, method: str, path: str, body: Any = None) -> Any:
    """The reply's JSON; None where the registry answers that there is no such thing."""
    import httpx

    where = f"schema registry at {url}"
    try:
        reply = httpx.request(
            method,
            f"{url.rstrip('/')}{path}",
            json=body,
            headers={"accept": _CONTENT, **({"content-type": _CONTENT} if body else {})},
            timeout=TIMEOUT_S,
            trust_env=not is_loopback(url),
        )
    except httpx.HTTPError as error:
        raise StoreUnavailable(f"{where}: {type(error).__name__}: {error}") from error
    if reply.status_code == 404:
        return None
    if reply.status_code in (400, 409, 422):
        raise Rejected(f"{where} refuses it: {reply.status_code} {reply.text[:500]}")
    answer = f"{where} answers {reply.status_code}: {reply.text[:200]}"
    if reply.status_code != 200:
        raise StoreUnavailable(answer)
    try:
        return reply.json()
    except ValueError as error:
        raise StoreUnavailable(answer) from error
