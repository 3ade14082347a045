"""Whether a broker can be reached as a connection says, and if not, which setting is wrong.

kafka-python reports each of these as "unable to bootstrap": it drops the broker's last answer when
the broker closes the connection after it. So the login is made here once, with its own mechanisms.

Source: Kafka protocol guide, "SASL Authentication Sequence"; SaslHandshake and SaslAuthenticate.
"""

import socket
import ssl
import struct
from contextlib import closing
from typing import NoReturn

from sage_connectors.kafka_security import library, python_options, tls_of
from sage_connectors.tls import CONNECT_TIMEOUT_S
from sage_flink.common.connections import KafkaConnection
from sage_flink.common.errors import ConfigError, StoreUnavailable

SASL_HANDSHAKE, SASL_AUTHENTICATE = (17, 1), (36, 0)
UNSUPPORTED_MECHANISM, ILLEGAL_SASL_STATE = 33, 34
ANSWER_BYTES_MAX = 1 << 20
#: The first byte of a TLS alert.
TLS_ALERT = 21


def addresses(servers: str) -> list[tuple[str, int]]:
    """Host and port of each server.

    >>> addresses("127.0.0.1:9092,[::1]:9093")
    [('127.0.0.1', 9092), ('::1', 9093)]

    Raises:
        ConfigError: not of the form ``host:port,host:port``.
    """
    found = []
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise ConfigError(f"Kafka: servers must be 'host:port,host:port', got {servers!r}")
        found.append((host.strip("[]"), int(port)))
    return found


def require_reachable(connection: KafkaConnection) -> None:
    """Check that a broker listens; of an encrypted one or with SASL, that it speaks the protocol.

    Asked first, because a client of kafka-python that finds no broker leaves its sockets open.

    Raises:
        ConfigError: a broker answers otherwise than the connection says; the message names the
            setting.
        StoreUnavailable: no broker answers.
    """
    errors = []
    for host, port in addresses(connection.servers):
        try:
            if connection.protocol == "PLAINTEXT":
                socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
            else:
                require_protocol(connection, host, port)
        except OSError as error:
            errors.append(f"{host}:{port}: {error}")
        except StoreUnavailable as error:
            errors.append(str(error).removeprefix(f"{connection.where}: "))
        else:
            return
    raise StoreUnavailable(
        f"Kafka: no broker answers ({'; '.join(errors)}); `sage ps` shows its state"
    )


def require_protocol(connection: KafkaConnection, host: str, port: int) -> None:
    """Check that the broker speaks the connection's protocol and mechanism.

    Raises:
        ConfigError: it does not; the message names the setting.
        StoreUnavailable: it is away.
    """
    where = f"{connection.where}: {host}:{port}"
    if connection.tls:
        tls = tls_of(connection)
        context = tls.context()
        opened: socket.socket = tls.connect(host, port, context)
    else:
        try:
            opened = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise StoreUnavailable(f"{where}: {error}") from error
    with closing(opened):
        try:
            _speak(connection, opened, f"{host}:{port}")
        except ssl.SSLError as error:  # TLS 1.3: refused after the client's side of the handshake
            raise ConfigError(tls_of(connection).refusal_of(host, port, error)) from error
        except TimeoutError as error:
            raise StoreUnavailable(f"{where}: no answer within {CONNECT_TIMEOUT_S:g} s") from error
        except OSError as error:
            _refuse_protocol(connection, f"{host}:{port}", str(error), error)


def _speak(connection: KafkaConnection, opened: socket.socket, server: str) -> None:
    """Log in, or see that there is no need to."""
    mechanism = (connection.mechanism or "").encode()
    asked = struct.pack(">h", len(mechanism)) + mechanism
    error, rest = _ask(opened, SASL_HANDSHAKE, asked)
    if not mechanism and error != ILLEGAL_SASL_STATE:
        _refuse_protocol(connection, server, f"it asks for a login by {', '.join(_texts(rest))}")
    if mechanism and error == UNSUPPORTED_MECHANISM:
        raise ConfigError(
            f"{connection.where}: mechanism: {server} does not know {connection.mechanism}; "
            f"it knows {', '.join(_texts(rest)) or 'none'}"
        )
    if mechanism and error:
        _refuse_protocol(connection, server, f"it asks for no login, error {error}")
    if mechanism:
        _log_in(connection, opened, server)


def _log_in(connection: KafkaConnection, opened: socket.socket, server: str) -> None:
    kafka = library()
    options = python_options(connection, kafka.KafkaAdminClient.DEFAULT_CONFIG)
    login = kafka.net.sasl.get_sasl_mechanism(connection.mechanism)(**options)
    while not login.is_done():
        token = login.auth_bytes()
        error, rest = _ask(opened, SASL_AUTHENTICATE, struct.pack(">i", len(token)) + token)
        (size,) = struct.unpack_from(">h", rest)
        size = max(size, 0)  # -1: there is no message
        if error:
            fields = "client_id, client_secret, token_url"
            fields = fields if connection.token_url else "username, password"
            message = rest[2 : 2 + size].decode(errors="replace")
            raise ConfigError(
                f"{connection.where}: {fields}: {server} does not accept them: {message}"
            )
        login.receive(rest[6 + size :])


def _ask(opened: socket.socket, api: tuple[int, int], body: bytes) -> tuple[int, bytes]:
    """The error code of the answer to one request, and what follows it."""
    correlation = 7
    request = struct.pack(">hhih", *api, correlation, -1) + body  # -1: no client name
    opened.sendall(struct.pack(">i", len(request)) + request)
    with opened.makefile("rb") as reader:
        head = reader.read(10)
        if len(head) < 10 or head[0] == TLS_ALERT:
            raise ConnectionError("it closed the connection" if not head else "it speaks TLS")
        size, answered, error = struct.unpack(">iih", head)
        if answered != correlation or not 6 <= size <= ANSWER_BYTES_MAX:
            raise ConnectionError("it is no Kafka broker")
        return error, reader.read(size - 6)


def _texts(body: bytes) -> list[str]:
    found, at = [], 4
    for _ in range(min(100, struct.unpack_from(">i", body)[0])):
        (size,) = struct.unpack_from(">h", body, at)
        found.append(body[at + 2 : at + 2 + size].decode())
        at += 2 + size
    return found


def _refuse_protocol(
    connection: KafkaConnection, server: str, reason: str, cause: Exception | None = None
) -> NoReturn:
    raise ConfigError(
        f"{connection.where}: protocol: {server} does not speak {connection.protocol}: {reason}"
    ) from cause
