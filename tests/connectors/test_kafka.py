"""Topic specs, and the plain Kafka client against a broker."""

import pickle
import socket
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sage_connectors import Kafka, kafka
from sage_connectors.kafka_client import (
    delete_topic,
    drain,
    end_offsets,
    ensure_topic,
    feed,
    transaction_timeout_ms,
    with_coordinator,
)
from sage_connectors.kafka_connection import _network
from sage_connectors.kafka_security import library
from sage_flink.common import ConfigError, Settings, StoreUnavailable
from sage_flink.flow.ports import FlinkSink, FlinkSource, SharedSink, Sink, Source


def test_a_topic_is_a_picklable_source_and_sink_of_flink() -> None:
    topic = kafka("documents", delivery="at_least_once")

    assert isinstance(topic, FlinkSource)
    assert isinstance(topic, FlinkSink)
    assert not isinstance(topic, Source | Sink)
    assert pickle.loads(pickle.dumps(topic)) == topic


def test_the_java_connector_gets_the_fields_of_the_topic() -> None:
    def arguments(*received: Any) -> Any:
        return received

    native = SimpleNamespace(source=arguments, sink=arguments)
    jvm = SimpleNamespace(
        org=SimpleNamespace(
            sage=SimpleNamespace(
                flink=SimpleNamespace(connector=SimpleNamespace(KafkaConnector=native))
            )
        )
    )
    server, timeout_ms = "127.0.0.1:1", 900_000
    topic = kafka("t", server, group="g", start="latest", bounded=True)

    assert topic.flink_source(jvm) == (server, "t", "g", "latest", True, {})
    once = ("exactly_once", "p", timeout_ms, {})
    assert topic.flink_sink(jvm, transaction_prefix="p") == (server, "t", *once)
    assert topic.topics_sink().flink_sink(jvm, transaction_prefix="p") == (server, "", *once)


def test_the_topic_and_the_group_of_a_job_have_its_name() -> None:
    source = kafka("{job}.in,all").for_job("mine")
    own = kafka("t", group="own").for_job("mine")

    assert (source.topic, source.group) == ("mine.in,all", "mine")
    assert (own.topic, own.group) == ("t", "own")
    with pytest.raises(ConfigError, match="topic must be"):
        kafka("{job}.in").for_job("my job")


def test_topics_of_the_same_servers_share_a_sink() -> None:
    one = kafka("a", "h:1", delivery="at_least_once")

    assert isinstance(one, SharedSink)
    assert one.topics_sink() == kafka("b", "h:1", group="g").topics_sink()
    assert one.topics_sink() != kafka("a", "h:2").topics_sink()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"topic": " "}, "topic"),
        ({"topic": "my topic"}, "topic"),
        ({"topic": ".."}, "topic"),
        ({"topic": "a,,b"}, "topic"),
        ({"topic": ["t"]}, "topic"),
        ({"servers": ["a:1"]}, "servers"),
        ({"servers": "localhost"}, "servers"),
        ({"group": ""}, "group"),
        ({"start": "now"}, "start"),
        ({"delivery": "maybe"}, "delivery"),
    ],
)
def test_an_invalid_option_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named} must be"):
        Kafka(**{"topic": "t", **wrong})


def test_servers_without_a_port_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="host:port"):
        end_offsets("t", "localhost")


def test_the_error_for_an_unavailable_broker_names_its_address() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        feed("t", [(None, b"x")], "127.0.0.1:1")


def test_a_group_is_asked_for_again_while_its_coordinator_is_loaded() -> None:
    errors = library().errors
    left = [errors.CoordinatorLoadInProgressError(), errors.CoordinatorNotAvailableError()]

    def ask() -> str:
        if left:
            raise left.pop()
        return "offsets"

    assert with_coordinator(ask) == "offsets"


def test_another_error_of_a_group_is_raised_at_once() -> None:
    calls = []

    def ask() -> None:
        calls.append(1)
        raise library().errors.GroupAuthorizationFailedError

    with pytest.raises(library().errors.GroupAuthorizationFailedError):
        with_coordinator(ask)

    assert len(calls) == 1


@pytest.fixture
def topic() -> Iterator[str]:
    name = f"conformance-{uuid.uuid4().hex}"
    ensure_topic(name, 3)
    yield name
    delete_topic(name)


@pytest.mark.service
def test_drain_returns_all_messages_that_were_fed(topic: str) -> None:
    progress: list[int] = []
    messages = [(f"k{n}".encode(), f"v{n}".encode(), {"h": b"x"}, 1000 + n) for n in range(2500)]

    assert feed(topic, messages, on_progress=progress.append) == 2500

    found = list(drain(topic))
    assert progress[-1] == 2500
    assert progress == sorted(progress)
    assert {(r.key, r.value, r.timestamp_ms) for r in found} == {
        (k, v, t) for k, v, _, t in messages
    }
    assert found[0].headers == {"h": b"x"}
    assert {r.id for r in found} == {
        f"{topic}/{p}/{n}" for p, end in end_offsets(topic).items() for n in range(end)
    }


def test_a_client_closed_with_bytes_left_to_send_leaves_no_socket_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        address = f"127.0.0.1:{silent_server.getsockname()[1]}"
        network = _network(bootstrap_servers=[address])
        connection = network._manager.get_connection("bootstrap-0")
        while not connection.transport:
            network.poll(timeout_ms=10)
        opened_socket = connection.transport._sock
        connection.transport.write(bytes(64 << 20))
        network.poll(timeout_ms=10)
        connection.transport.close()
        network.close()

    assert opened_socket.fileno() == -1


@pytest.mark.service
def test_large_records_and_tombstones_are_written_and_read(topic: str) -> None:
    large = b"x" * (20 << 20)

    feed(topic, [(b"k", large), (b"k", None)])

    assert [r.value for r in drain(topic)] == [large, None]


@pytest.mark.service
def test_a_record_above_the_limit_is_a_config_error(topic: str) -> None:
    with pytest.raises(ConfigError, match="Kafka at"):
        feed(topic, [(b"k", b"x" * (33 << 20))])


@pytest.mark.service
def test_only_committed_records_are_drained_by_default(topic: str) -> None:
    servers = Settings.load().kafka_servers.split(",")
    producer = library().KafkaProducer(
        bootstrap_servers=servers, transactional_id=topic, acks="all"
    )
    producer.init_transactions()
    for value, end in ((b"kept", "commit"), (b"dropped", "abort")):
        producer.begin_transaction()
        producer.send(topic, value, key=b"k")
        producer.flush()
        getattr(producer, f"{end}_transaction")()
    producer.close()

    assert [r.value for r in drain(topic, timeout_s=5)] == [b"kept"]
    assert [r.value for r in drain(topic, read_committed=False, timeout_s=5)] == [
        b"kept",
        b"dropped",
    ]


@pytest.mark.service
def test_an_existing_topic_is_kept(topic: str) -> None:
    ensure_topic(topic, 5)

    assert end_offsets(topic) == {0: 0, 1: 0, 2: 0}
    assert list(drain(topic)) == []


@pytest.mark.service
def test_the_error_for_a_missing_topic_names_it() -> None:
    with pytest.raises(ConfigError, match="no topic 'nowhere-at-all'"):
        list(drain("nowhere-at-all"))


@pytest.mark.service
def test_the_transaction_timeout_is_the_maximum_of_the_broker() -> None:
    assert transaction_timeout_ms() == 7_200_000
