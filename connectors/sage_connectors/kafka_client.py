"""A plain Kafka client for tools and tests: feed, drain, count, make and delete topics.

Jobs do not use it; Flink's own connector reads and writes for them.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tenacity

from sage_connectors.kafka_connection import Brokers, client, connection_of
from sage_connectors.kafka_security import library
from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.common.records import Record

T = TypeVar("T")
Headers = Mapping[str, bytes] | Sequence[tuple[str, bytes]] | None
#: Key and value, and maybe headers, the timestamp in milliseconds, and the partition.
Message = (
    tuple[bytes | None, bytes | None]
    | tuple[bytes | None, bytes | None, Headers]
    | tuple[bytes | None, bytes | None, Headers, int | None]
    | tuple[bytes | None, bytes | None, Headers, int | None, int | None]
)
RECORD_BYTES_MAX = 32 << 20
#: kafka-python would wait up to 30 s before it looks for a broker that is back.
RECONNECT_MS_MAX = 1_000
IN_FLIGHT_MAX = 10_000
COORDINATOR_MAX_S = 30
#: A broker's default limit, and what a sink asks for where the broker allows it.
TRANSACTION_MS_USUAL, TRANSACTION_MS_MAX = 900_000, 7_200_000


def feed(
    topic: str,
    messages: Iterable[Message],
    servers: Brokers = "",
    *,
    on_progress: Callable[[int], object] = lambda acknowledged: None,
) -> int:
    """Write the messages, in order within a key; how many were acknowledged by all replicas.

    Idempotent producer: a retry over a lost connection doubles no message. Over a crash of the
    broker it can (seen once in 18 kills of a broker under load). ``on_progress`` gets the number
    acknowledged so far, at most every 1,000 messages and at the end.

    Raises:
        ConfigError: the broker will never take a message (too large, no such topic allowed).
        StoreUnavailable: the broker is away; some of the messages may be stored.
    """
    with client("KafkaProducer", servers, **_PRODUCER) as producer:
        waiting: deque[Any] = deque()
        acknowledged = 0
        for message in messages:
            key, value, headers, *more = (*message, None, None, None)[:5]
            pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
            options = dict(zip(("timestamp_ms", "partition"), more, strict=True))
            waiting.append(producer.send(topic, value, key=key, headers=list(pairs), **options))
            while len(waiting) >= IN_FLIGHT_MAX or (waiting and waiting[0].is_done):
                waiting.popleft().get(timeout=120)
                acknowledged += 1
                if acknowledged % 1000 == 0:
                    on_progress(acknowledged)
        producer.flush(timeout=120)
        for future in waiting:
            future.get(timeout=120)
        on_progress(acknowledged + len(waiting))
        return acknowledged + len(waiting)


def drain(
    topic: str, servers: Brokers = "", *, read_committed: bool = True, timeout_s: float = 30.0
) -> Iterator[Record]:
    """Everything in the topic when this is called, partition by partition as it arrives.

    With ``read_committed`` the records of open and aborted transactions are left out.

    Raises:
        ConfigError: there is no such topic.
        StoreUnavailable: the broker is away, or sent no data for ``timeout_s`` seconds.
    """
    with open_consumer(servers, read_committed) as consumer:
        ends = consumer.end_offsets(partitions_of(consumer, topic))
        consumer.assign(list(ends))
        consumer.seek_to_beginning()
        heard = time.monotonic()
        while behind := [p for p, end in ends.items() if consumer.position(p) < end]:
            batches = consumer.poll(timeout_ms=200)
            if any(batches.values()):
                heard = time.monotonic()
            elif time.monotonic() - heard > timeout_s:
                place = connection_of(servers).where
                raise StoreUnavailable(
                    f"{place}: topic {topic!r}: no data arrived for "
                    f"{timeout_s:g} s, {len(behind)} partitions not at their end"
                )
            for partition, batch in batches.items():
                yield from (_record(m) for m in batch if m.offset < ends[partition])


def follow(topic: str, stop: threading.Event, servers: Brokers = "") -> Iterator[Record]:
    """The committed records of the topic from its start, and new ones, until ``stop`` is set.

    After an outage of the broker it continues at its position. It yields each record once.

    Raises:
        ConfigError: there is no such topic.
    """
    seen: dict[int, int] = {}
    while not stop.is_set():
        try:
            with open_consumer(servers, read_committed=True) as consumer:
                partitions = partitions_of(consumer, topic)
                consumer.assign(partitions)
                for partition in partitions:
                    consumer.seek(partition, seen.get(partition.partition, 0))
                while not stop.is_set():
                    for partition, batch in consumer.poll(timeout_ms=200).items():
                        for message in batch:
                            yield _record(message)
                            seen[partition.partition] = message.offset + 1
        except StoreUnavailable:
            stop.wait(0.5)


def end_offsets(
    topic: str, servers: Brokers = "", *, read_committed: bool = False
) -> dict[int, int]:
    """Per partition, the offset that its next record gets.

    With ``read_committed`` the first offset that may still be aborted. Counts transaction markers.

    Raises:
        ConfigError: there is no such topic.
        StoreUnavailable: the broker is away.
    """
    with open_consumer(servers, read_committed) as consumer:
        found = consumer.end_offsets(partitions_of(consumer, topic))
        return {partition.partition: int(end) for partition, end in found.items()}


def committed_offsets(group: str, topic: str, servers: Brokers = "") -> int:
    """How many offsets of the topic the group has committed, over all partitions.

    A Flink job commits them when a checkpoint completes.

    Raises:
        StoreUnavailable: the broker is away.
    """
    with client("KafkaAdminClient", servers) as admin:
        offsets = with_coordinator(lambda: admin.list_group_offsets(group)).get(group, {})
        return sum(max(0, o.offset) for p, o in offsets.items() if p.topic == topic)


def with_coordinator(ask: Callable[[], T]) -> T:
    """What ``ask`` returns, asked again while the broker loads the group's coordinator.

    A broker does that when a group is first asked for; on a new stack it takes some seconds.
    """
    errors = library().errors
    loading = errors.CoordinatorLoadInProgressError, errors.CoordinatorNotAvailableError
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(loading),
        wait=tenacity.wait_fixed(0.2),
        stop=tenacity.stop_after_delay(COORDINATOR_MAX_S),
        reraise=True,
    )
    return retry(ask)


def transaction_timeout_ms(servers: Brokers = "") -> int:
    """How long a sink's transaction may stay open: two hours, or what the brokers allow if less.

    Kafka's default of 15 minutes where the brokers do not answer. A broker drops a transaction that
    is older, also after its checkpoint is complete: a job that was down for longer loses output.
    """
    try:
        with client("KafkaAdminClient", servers) as admin:
            kind = library().admin.ConfigResourceType.BROKER
            resource = library().admin.ConfigResource
            asked = [
                resource(kind, str(broker["broker_id"]), {_LIMIT: None})
                for broker in admin.describe_cluster()["brokers"]
            ]
            configs = admin.describe_configs(asked, config_filter="all")["broker"].values()
            return min(TRANSACTION_MS_MAX, *(int(each[_LIMIT]["value"]) for each in configs))
    except (ConfigError, StoreUnavailable):
        return TRANSACTION_MS_USUAL


def topic_bytes_max(topic: str, servers: Brokers = "") -> int:
    """The largest message that the topic takes, its ``max.message.bytes``.

    ``RECORD_BYTES_MAX`` where the topic is absent, since :func:`ensure_topic` makes it with that,
    and where the brokers do not say.
    """
    try:
        with client("KafkaAdminClient", servers) as admin:
            if topic not in admin.list_topics():
                return RECORD_BYTES_MAX
            resource = library().admin.ConfigResource
            asked = resource(library().admin.ConfigResourceType.TOPIC, topic, {_TOPIC_LIMIT: None})
            found = admin.describe_configs([asked], config_filter="all")["topic"]
            return int(found[topic][_TOPIC_LIMIT]["value"])
    except (ConfigError, StoreUnavailable):
        return RECORD_BYTES_MAX


def ensure_topic(topic: str, partitions: int = 1, servers: Brokers = "") -> None:
    """Create the topic where it is absent: unlimited retention, records up to 32 MiB.

    A topic that exists is left as it is.

    Raises:
        ConfigError: the broker refuses the name or the number of partitions.
        StoreUnavailable: the broker is away.
    """
    configs = {"retention.ms": "-1", _TOPIC_LIMIT: str(RECORD_BYTES_MAX)}
    with client("KafkaAdminClient", servers) as admin:
        asked = {topic: {"num_partitions": partitions, "configs": configs}}
        if topic not in admin.list_topics():
            try:
                admin.create_topics(asked, wait_for_metadata=True)
            except library().errors.TopicAlreadyExistsError:
                admin.wait_for_topics([topic])  # another one was first


def topics(servers: Brokers = "") -> frozenset[str]:
    """The names of all topics.

    Raises:
        StoreUnavailable: the broker is away.
    """
    with client("KafkaAdminClient", servers) as admin:
        return frozenset(admin.list_topics())


def delete_topic(topic: str, servers: Brokers = "") -> None:
    """Delete the topic with all its records. For tests and tools.

    Raises:
        ConfigError: there is no such topic.
        StoreUnavailable: the broker is away.
    """
    with client("KafkaAdminClient", servers) as admin:
        admin.delete_topics([topic])


#: Of a record whose timestamp brokers refuse, see KafkaWireSerializationSchema.
TIMESTAMP_HEADER = "sage-timestamp-ms"
_TOPIC_LIMIT = "max.message.bytes"
_LIMIT = "transaction.max.timeout.ms"
_PRODUCER: dict[str, Any] = {
    "acks": "all",
    "enable_idempotence": True,
    "linger_ms": 5,
    "batch_size": 1 << 18,
    "max_request_size": RECORD_BYTES_MAX,
    "max_block_ms": 60_000,
    "reconnect_backoff_max_ms": RECONNECT_MS_MAX,
}


def _record(message: Any) -> Record:
    id_ = f"{message.topic}/{message.partition}/{message.offset}"
    headers = {name: value or b"" for name, value in message.headers}
    timestamp_ms = max(0, message.timestamp)
    written = headers.pop(TIMESTAMP_HEADER, b"")
    if re.fullmatch(rb"[1-9][0-9]{0,14}", written):
        timestamp_ms = int(written)
    return Record(id_, message.value, timestamp_ms, message.key, headers, id_)


def open_consumer(servers: Brokers, read_committed: bool, bytes_max: int = RECORD_BYTES_MAX) -> Any:
    """A consumer without a group, closed at the end of its block."""
    return client(
        "KafkaConsumer",
        servers,
        enable_auto_commit=False,
        isolation_level="read_committed" if read_committed else "read_uncommitted",
        max_partition_fetch_bytes=bytes_max,
        allow_auto_create_topics=False,
        reconnect_backoff_max_ms=RECONNECT_MS_MAX,
    )


def partitions_of(consumer: Any, topic: str) -> list[Any]:
    """The partitions of the topic, by number.

    Raises:
        ConfigError: there is no such topic.
    """
    found = consumer.partitions_for_topic(topic)
    if not found:
        raise ConfigError(f"Kafka: no topic {topic!r}; make it with ensure_topic({topic!r})")
    return [library().TopicPartition(topic, number) for number in sorted(found)]
