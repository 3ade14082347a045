"""What the fields of a connection may hold; each rule returns its value or raises ValueError.

No message repeats the value: it may be a secret at the wrong place.
"""

import re
from urllib.parse import urlsplit

from sage_flink.common.secret_references import is_reference

#: What each mechanism needs.
SASL: dict[str, tuple[str, ...]] = {
    "PLAIN": ("username", "password"),
    "SCRAM-SHA-256": ("username", "password"),
    "SCRAM-SHA-512": ("username", "password"),
    "OAUTHBEARER": ("token_url", "client_id", "client_secret"),
}
#: Properties that a connection says by a field of its own.
FIELDS = {
    "bootstrap.servers": "servers",
    "security.protocol": "protocol",
    "sasl.mechanism": "mechanism",
}
#: Properties that exactly-once delivery rests on: the source and the sink set them.
DELIVERY = re.compile(
    r"acks|auto\.offset\.reset|enable\.auto\.commit|enable\.idempotence|group\..*|isolation\.level"
    r"|(key|value)\.(de)?serializer|transaction\..*|transactional\.id|config\.providers.*"
)
SECRET_PROPERTY = re.compile(r".*(password|secret|passphrase|jaas|keystore\.key|\.token)$|.*jaas.*")
REFERENCE_RULE = (
    "a reference: env:NAME for an environment variable, or file:/PATH for a file that holds it"
)


def secret_reference(text: str) -> str:
    """A reference to a secret, or empty."""
    if text and not is_reference(text):
        raise ValueError(REFERENCE_RULE)
    return text


def absolute_path(text: str) -> str:
    """An absolute path, or empty: a worker has another working directory."""
    if text and (not text.startswith("/") or "}" in text):
        raise ValueError("an absolute path, without a brace")
    return text


def server_list(text: str) -> str:
    """``host:port,host:port``."""
    for server in text.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535 or "@" in host or "/" in host:
            raise ValueError("'host:port,host:port'")
    return text


def plain_text(value: object) -> object:
    """A number or a truth value of YAML as Kafka writes it; anything else as it is.

    >>> plain_text(True), plain_text(5)
    ('true', '5')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def server_url(text: str) -> str:
    """One URL or several, with commas between, without a user or password."""
    for each in text.split(","):
        try:
            parts = urlsplit(each.strip())
            place = parts.path if parts.scheme == "unix" else parts.hostname
            whole = bool(parts.scheme and place) and (parts.port or 1) > 0
        except ValueError:
            whole = False
        if not whole:
            raise ValueError("a URL such as https://host:port")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a URL without a user and password; there are fields for them")
    return text


def kafka_properties(properties: dict[str, str]) -> dict[str, str]:
    """Properties of Kafka's client that a user may set, secrets among them as references."""
    for name, value in properties.items():
        if field := FIELDS.get(name):
            raise ValueError(f"without {name}: the field {field} says it")
        if DELIVERY.fullmatch(name):
            raise ValueError(f"without {name}: exactly-once delivery rests on it")
        if SECRET_PROPERTY.fullmatch(name) and not is_reference(value):
            raise ValueError(f"with a secret {name} as {REFERENCE_RULE}")
    return properties
