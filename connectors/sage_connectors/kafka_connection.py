"""How a client of kafka-python is opened and closed, and what its errors mean."""

import socket
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.common.settings import Settings

CONNECT_TIMEOUT_MS = 5_000


@contextmanager
def client(kind: str, servers: str, **options: Any) -> Iterator[Any]:
    """A client of kafka-python, by the name of its class, closed at the end.

    Raises:
        ConfigError: the broker will never do what is asked.
        StoreUnavailable: the broker is away.
    """
    kafka, named = library(), servers_of(servers)
    errors = kafka.errors
    _reachable(named)
    try:
        make = getattr(kafka, kind)
        made = make(
            bootstrap_servers=named.split(","),
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            kafka_client=_network,
            **options,
        )
        with closing(made) as opened:
            yield opened
    except (
        errors.MessageSizeTooLargeError,
        errors.RecordListTooLargeError,
        errors.InvalidTopicError,
        errors.InvalidPartitionsError,
        errors.UnknownTopicOrPartitionError,
        errors.AuthorizationError,
        errors.KafkaConfigurationError,
    ) as error:
        raise ConfigError(f"Kafka at {named}: {error}") from error
    except (errors.KafkaError, OSError) as error:
        raise StoreUnavailable(
            f"Kafka at {named}: {type(error).__name__}: {error}; `sage ps` shows its state"
        ) from error


def _network(**options: Any) -> Any:
    # kafka-python 3.0 closes a connection when its last bytes are sent, but ends what sends them:
    # a connection with bytes left, or still being made, stays open until it is collected.
    made = library().net.compat.KafkaNetClient(**options)
    selector, close = made._net._selector, made.close

    def close_all(node_id: Any = None) -> None:
        watched = [key.fileobj for key in selector.get_map().values()] if node_id is None else []
        close(node_id)
        for sock in watched:
            sock.close()

    made.close = close_all
    return made


def _reachable(servers: str) -> None:
    # Asked first, because a client of kafka-python that finds no broker leaves its sockets open.
    errors = []
    for host, port in addresses(servers):
        try:
            socket.create_connection((host, port), CONNECT_TIMEOUT_MS / 1000).close()
        except OSError as error:
            errors.append(f"{host}:{port}: {error}")
        else:
            return
    raise StoreUnavailable(
        f"Kafka: no broker answers ({'; '.join(errors)}); `sage ps` shows its state"
    )


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
    return kafka


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


def servers_of(servers: str) -> str:
    """The servers named, else the settings'."""
    return servers or Settings.load().kafka_servers
