"""Named connections: how to reach a server, and where its secrets are; never a secret itself.

What a connection holds in place of a secret is a reference, which is resolved where the connection
is opened: by the submitting process, by the JobManager, and by each worker. Paths (``ca``,
``certificate``, ``key``, ``file:``) are paths on each of these machines. Where connections are
defined: :mod:`~sage_flink.common.connections_file`.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    model_validator,
)

from sage_flink.common.connection_rules import (
    SASL,
    absolute_path,
    kafka_properties,
    plain_text,
    secret_reference,
    server_list,
    server_url,
)
from sage_flink.common.errors import ConfigError
from sage_flink.common.secret_references import resolve

Secret = Annotated[str, AfterValidator(secret_reference)]
FilePath = Annotated[str, AfterValidator(absolute_path)]
Url = Annotated[str, AfterValidator(server_url)]
Servers = Annotated[str, AfterValidator(server_list)]
Properties = Annotated[
    dict[str, Annotated[str, BeforeValidator(plain_text)]], AfterValidator(kafka_properties)
]


class _Definition(BaseModel):
    # Inputs are hidden: what was refused may be a secret that was written in place of a reference.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: The field that holds the address, and the field of the settings for a connection without one.
    address_field: ClassVar[str] = "url"
    setting: ClassVar[str] = ""

    name: str = ""

    def __hash__(self) -> int:
        # Cheap: a decoder asks for it with every message. Equal connections have an equal address.
        return hash((type(self), self.name, self.address))

    @model_validator(mode="after")
    def _authority_is_of_use(self) -> Self:
        encrypted = not hasattr(self, "url") or self.address.startswith(("https:", "rediss:"))
        if getattr(self, "ca", "") and not encrypted:
            raise ValueError("ca is for a URL of https or rediss")
        return self

    @property
    def address(self) -> str:
        """The servers or the URL."""
        return str(getattr(self, self.address_field))

    @property
    def where(self) -> str:
        """The connection in the words of an error.

        >>> KafkaConnection(name="events", servers="b:1").where
        "connection 'events' (kafka at b:1)"
        """
        kind = f"{getattr(self, 'kind', '').replace('_', ' ')} at {self.address}"
        return f"connection {self.name!r} ({kind})" if self.name else kind

    def secret(self, field: str) -> str:
        """The secret that ``field`` refers to, read now; empty where the field is.

        Raises:
            ConfigError: the environment variable or the file is not there.
        """
        return resolve(getattr(self, field), f"{self.where}: {field}")

    @property
    def security(self) -> str:
        """How it is secured, in a few words, such as ``tls, token``."""
        words = ["tls"] if self.address.startswith(("https:", "rediss:")) else []
        words += [f for f in ("token", "key", "password") if getattr(self, f, "")]
        return ", ".join(words) or "open"


class KafkaConnection(_Definition):
    """Brokers of Kafka. ``properties`` are any further properties of Kafka's own client."""

    address_field: ClassVar[str] = "servers"
    setting: ClassVar[str] = "kafka_servers"

    kind: Literal["kafka"] = "kafka"
    servers: Servers
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    username: str = ""
    password: Secret = ""
    ca: FilePath = ""
    certificate: FilePath = ""
    key: FilePath = ""
    token_url: str = ""
    client_id: str = ""
    client_secret: Secret = ""
    properties: Properties = {}

    @model_validator(mode="after")
    def _fields_fit(self) -> "KafkaConnection":
        if (self.mechanism is not None) != self.protocol.startswith("SASL_"):
            raise ValueError(
                "mechanism is for protocol SASL_SSL or SASL_PLAINTEXT, and needed there"
            )
        needed = SASL.get(self.mechanism or "", ())
        if missing := [field for field in needed if not getattr(self, field)]:
            raise ValueError(f"mechanism {self.mechanism} needs {' and '.join(missing)}")
        others = {field for fields in SASL.values() for field in fields} - set(needed)
        if unused := sorted(field for field in others if getattr(self, field)):
            raise ValueError(f"{unused[0]} has no use with mechanism {self.mechanism}")
        if (self.ca or self.certificate) and not self.tls:
            raise ValueError("ca, certificate and key go with protocol SSL or SASL_SSL")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        return self

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.protocol in {"SSL", "SASL_SSL"}

    @property
    def security(self) -> str:
        """The protocol, the mechanism, and whether the client has a certificate."""
        words = [self.protocol, self.mechanism or "", "mTLS" if self.certificate else ""]
        return "open" if self.protocol == "PLAINTEXT" else " ".join(filter(None, words))


class MilvusConnection(_Definition):
    """A Milvus server: a token, or a user and password; TLS where the URL is https."""

    setting: ClassVar[str] = "milvus_url"

    kind: Literal["milvus"] = "milvus"
    url: Url
    token: Secret = ""
    user: str = ""
    password: Secret = ""
    database: str = ""
    ca: FilePath = ""


class InfluxdbConnection(_Definition):
    """An InfluxDB server; TLS where the URL is https."""

    setting: ClassVar[str] = "influxdb_url"

    kind: Literal["influxdb"] = "influxdb"
    url: Url
    org: str = ""
    token: Secret = ""
    ca: FilePath = ""


class RedisConnection(_Definition):
    """A Redis server; TLS where the URL is rediss."""

    kind: Literal["redis"] = "redis"
    url: Url
    username: str = ""
    password: Secret = ""
    ca: FilePath = ""


class SchemaRegistryConnection(_Definition):
    """A schema registry with Confluent's API: a user and password, or a token.

    TLS where the URL is https; ``certificate``, ``key`` and ``key_password`` are the client's own.
    """

    kind: Literal["schema_registry"] = "schema_registry"
    url: Url
    username: str = ""
    password: Secret = ""
    token: Secret = ""
    ca: FilePath = ""
    certificate: FilePath = ""
    key: FilePath = ""
    key_password: Secret = ""

    @model_validator(mode="after")
    def _fields_fit(self) -> "SchemaRegistryConnection":
        if "," in self.url or not self.url.startswith(("http://", "https://")):
            raise ValueError("url must be one URL of http or https")
        if bool(self.username) != bool(self.password):
            raise ValueError("username and password go together")
        if self.token and self.username:
            raise ValueError("give token, or username and password, not both")
        if bool(self.certificate) != bool(self.key) or (self.key_password and not self.key):
            raise ValueError("certificate and key go together, and key_password with them")
        if self.certificate and not self.url.startswith("https:"):
            raise ValueError("certificate is for a URL of https")
        return self

    @property
    def security(self) -> str:
        """How it is secured, in a few words, such as ``tls, mTLS, password``."""
        used = {
            "tls": self.url.startswith("https:"),
            "mTLS": self.certificate,
            "token": self.token,
            "password": self.password,
        }
        return ", ".join(word for word, field in used.items() if field) or "open"


class GatewayConnection(_Definition):
    """A gateway, or any pool that speaks OpenAI's API (several: with commas)."""

    setting: ClassVar[str] = "gateway_url"

    kind: Literal["gateway"] = "gateway"
    url: Url
    key: Secret = ""
    ca: FilePath = ""


Connection = (
    KafkaConnection
    | MilvusConnection
    | InfluxdbConnection
    | RedisConnection
    | SchemaRegistryConnection
    | GatewayConnection
)
KINDS: dict[str, type[Connection]] = {
    "kafka": KafkaConnection,
    "milvus": MilvusConnection,
    "influxdb": InfluxdbConnection,
    "redis": RedisConnection,
    "schema_registry": SchemaRegistryConnection,
    "gateway": GatewayConnection,
}


def parse(name: str, fields: Any, source: str = "") -> Connection:
    """The connection called ``name`` from its fields.

    >>> parse("events", {"kind": "kafka", "servers": "b:9092", "password": "swordfish"})
    Traceback (most recent call last):
    sage_flink.common.errors.ConfigError: connection 'events': password must be a reference: \
env:NAME for an environment variable, or file:/PATH for a file that holds it

    Raises:
        ConfigError: a field is unknown, missing or wrong.
    """
    where = ": ".join(filter(None, (source, f"connection {name!r}" if name else "")))
    kind = fields.get("kind") if isinstance(fields, dict) else None
    if not isinstance(name, str) or not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{where}: kind must be one of {', '.join(KINDS)}")
    model = KINDS[kind]
    known = [field for field in model.model_fields if field != "name"]
    if unknown := sorted(str(field) for field in fields if field not in known):
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; it knows: {', '.join(known)}")
    try:
        return model(**{**fields, "name": name})
    except ValidationError as error:
        message = _sentence(error)
    # Not chained: pydantic's error keeps what was written, and that may be a secret.
    raise ConfigError(f"{where or kind}: {message}")


def _sentence(error: ValidationError) -> str:
    """The first fault, with its field; never the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"needs {field}"
    message = message.removeprefix("Input should be ")
    return f"{field} must be {message}" if field else message
