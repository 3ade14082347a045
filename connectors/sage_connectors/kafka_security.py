"""A connection as options of kafka-python, and as properties of Kafka's Java client.

The Java properties travel in the job graph, so they hold references, which our ``SecretProvider``
resolves in the JVM that makes the client (Kafka's own providers keep the line end of a file, leave
the name of a missing variable as the password, and quote nothing for JAAS).
"""

import logging
import re
import time
import warnings
from collections.abc import Mapping
from typing import Any

import httpx

from sage_connectors.tls import Tls
from sage_flink.common.connections import KafkaConnection
from sage_flink.common.errors import ConfigError
from sage_flink.common.http_clients import httpx_options
from sage_flink.common.secret_references import is_reference, resolve

#: Kafka's client in the jar of Flink's connector.
SHADED = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security"
PROVIDER = "org.sage.flink.connector.SecretProvider"
LOGIN = {
    "PLAIN": f"{SHADED}.plain.PlainLoginModule",
    "SCRAM-SHA-256": f"{SHADED}.scram.ScramLoginModule",
    "SCRAM-SHA-512": f"{SHADED}.scram.ScramLoginModule",
    "OAUTHBEARER": f"{SHADED}.oauthbearer.OAuthBearerLoginModule",
}
#: What Kafka's defaults come to; those load jose4j, which the jar of Flink's connector leaves out.
OAUTH = {
    "sasl.login.callback.handler.class": f"{SHADED}.oauthbearer.OAuthBearerLoginCallbackHandler",
    "sasl.oauthbearer.jwt.retriever.class": f"{SHADED}.oauthbearer.ClientCredentialsJwtRetriever",
    "sasl.oauthbearer.jwt.validator.class": f"{SHADED}.oauthbearer.ClientJwtValidator",
}
NAME_CHECK = "ssl.endpoint.identification.algorithm"
TOKEN_TIMEOUT_S = 10.0
#: Their lines at level DEBUG hold every request, and so the password of a login.
LOGS_OF_REQUESTS = ("kafka.net.connection", "kafka.protocol.parser")


def library() -> Any:
    """The module ``kafka``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():  # kafka-python 3.0 loads its schemas the old way
            warnings.simplefilter("ignore", DeprecationWarning)
            import kafka
    except ModuleNotFoundError as error:
        raise ConfigError("the Kafka client is missing: pip install 'sage-flink[kafka]'") from error
    for name in LOGS_OF_REQUESTS:
        logging.getLogger(name).setLevel(logging.INFO)
    return kafka


def tls_of(connection: KafkaConnection) -> Tls:
    """How the connection is encrypted.

    Raises:
        ConfigError: the password of the key is not where its reference says.
    """
    reference = connection.properties.get("ssl.key.password", "")
    return Tls(
        connection.where,
        connection.ca,
        connection.certificate,
        connection.key,
        resolve(reference, f"{connection.where}: ssl.key.password"),
        connection.properties.get(NAME_CHECK, "https") != "",
        "servers",
    )


def python_options(connection: KafkaConnection, known: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a client of kafka-python, the secrets resolved.

    ``known`` are the client's options and their defaults: it takes those properties that it has
    under the same name (``client.id`` is ``client_id``); the others are for Java's client only.

    Raises:
        ConfigError: a secret or a file is missing here.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": connection.servers.split(","),
        "security_protocol": connection.protocol,
    }
    for name, value in connection.properties.items():
        option = name.replace(".", "_")
        if option in known and not is_reference(value):
            options[option] = _as(type(known[option]), name, value)
    if connection.tls:
        options["ssl_context"] = tls_of(connection).context()
    if connection.mechanism == "OAUTHBEARER":
        options["sasl_oauth_token_provider"] = _token_provider(connection)
    elif connection.mechanism is not None:
        options["sasl_plain_username"] = connection.username
        options["sasl_plain_password"] = connection.secret("password")
    if connection.mechanism is not None:
        options["sasl_mechanism"] = connection.mechanism
    return {name: value for name, value in options.items() if name in known}


def java_properties(connection: KafkaConnection) -> dict[str, str]:
    """Properties of Java's client, with references in place of secrets; without the servers.

    >>> from sage_flink.common.connections import parse
    >>> java_properties(parse("a", {"kind": "kafka", "servers": "b:9092"}))
    {}
    """
    made = {
        name: _variable(value) if is_reference(value) else value
        for name, value in connection.properties.items()
    }
    if connection.protocol != "PLAINTEXT":
        made["security.protocol"] = connection.protocol
    if connection.ca:
        made |= {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": _file(connection.ca)}
    if connection.certificate:
        made["ssl.keystore.type"] = "PEM"
        made["ssl.keystore.certificate.chain"] = _file(connection.certificate)
        made["ssl.keystore.key"] = _file(connection.key)
    if connection.mechanism is not None:
        made |= _login(connection, connection.mechanism)
    if any("${sage:" in value for value in made.values()):
        made |= {"config.providers": "sage", "config.providers.sage.class": PROVIDER}
    return made


def _login(connection: KafkaConnection, mechanism: str) -> dict[str, str]:
    module = f"{LOGIN[mechanism]} required"
    if mechanism != "OAUTHBEARER":
        username = re.sub(r'(["\\])', r"\\\1", connection.username)
        password = _variable(connection.password, "jaas-")
        jaas = f'{module} username="{username}" password="{password}";'
        return {"sasl.mechanism": mechanism, "sasl.jaas.config": jaas}
    return {
        "sasl.mechanism": mechanism,
        "sasl.jaas.config": f"{module};",
        **OAUTH,
        "sasl.oauthbearer.token.endpoint.url": connection.token_url,
        "sasl.oauthbearer.client.credentials.client.id": connection.client_id,
        "sasl.oauthbearer.client.credentials.client.secret": _variable(connection.client_secret),
        "config.providers.sage.param.token.url": connection.token_url,
    }


def _variable(reference: str, quoting: str = "") -> str:
    """A reference in Kafka's form ``${provider:path:key}``."""
    return f"${{sage:{quoting}{reference}}}"


def _file(path: str) -> str:
    return _variable(f"file:{path}")


def _as(kind: type, name: str, value: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        return kind(value) if kind in (int, float) else value
    except (KeyError, ValueError):
        raise ConfigError(f"kafka: property {name} must be of kind {kind.__name__}") from None


def _token_provider(connection: KafkaConnection) -> Any:
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
        """OAuth 2.0 client credentials; a token is kept for three quarters of its life."""

        def __init__(self) -> None:
            self._token, self._until = "", 0.0

        def token(self) -> str:
            if time.monotonic() >= self._until:
                self._token, life_s = _new_token(connection)
                self._until = time.monotonic() + 0.75 * life_s
            return self._token

    return TokenProvider()


def _new_token(connection: KafkaConnection) -> tuple[str, float]:
    scope = connection.properties.get("sasl.oauthbearer.scope")
    form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
    where = f"{connection.where}: token_url {connection.token_url}"
    try:
        answer = httpx.post(
            connection.token_url,
            data=form,
            auth=(connection.client_id, connection.secret("client_secret")),
            timeout=TOKEN_TIMEOUT_S,
            **httpx_options(connection.token_url),
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    if answer.status_code in {400, 401, 403}:
        raise ConfigError(f"{where} does not accept client_id and client_secret")
    try:
        found = answer.json()
        return str(found["access_token"]), float(found.get("expires_in", 300))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{where}: status {answer.status_code}, no token in it") from None
