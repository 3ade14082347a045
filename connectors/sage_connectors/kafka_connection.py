"""How a client of kafka-python is opened and closed, and what its errors mean."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sage_connectors.kafka_probe import addresses, require_protocol, require_reachable
from sage_connectors.kafka_security import library, python_options
from sage_flink.common.connections import KafkaConnection
from sage_flink.common.connections_file import connection_to
from sage_flink.common.errors import ConfigError, StoreUnavailable

CONNECT_TIMEOUT_MS = 5_000
#: Brokers: a connection, or servers of which nothing but the address is known (empty: the stack's).
Brokers = str | KafkaConnection


@contextmanager
def client(kind: str, brokers: Brokers, **options: Any) -> Iterator[Any]:
    """A client of kafka-python, by the name of its class, closed at the end.

    Raises:
        ConfigError: the broker will never do what is asked; of a refused connection, the message
            names the setting.
        StoreUnavailable: the broker is away.
    """
    kafka, connection = library(), connection_of(brokers)
    errors = kafka.errors
    require_reachable(connection)
    try:
        make = getattr(kafka, kind)
        made = make(
            **{
                **python_options(connection, make.DEFAULT_CONFIG),
                "bootstrap_timeout_ms": CONNECT_TIMEOUT_MS,
                "kafka_client": _network,
                **options,
            }
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
        raise ConfigError(f"{_place(connection)}: {error}") from error
    except (errors.KafkaError, OSError) as error:
        if isinstance(error, errors.KafkaTimeoutError):
            for host, port in addresses(connection.servers):
                require_protocol(connection, host, port)
        raise StoreUnavailable(
            f"{_place(connection)}: {type(error).__name__}: {error}; `sage ps` shows its state"
        ) from error


def _place(connection: KafkaConnection) -> str:
    return connection.where if connection.name else f"Kafka at {connection.servers}"


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


def connection_of(brokers: Brokers) -> KafkaConnection:
    """The connection, or the one to these servers (empty: the stack's)."""
    if isinstance(brokers, KafkaConnection):
        return brokers
    return connection_to(brokers, KafkaConnection)
