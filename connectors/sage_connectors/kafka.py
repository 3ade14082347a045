"""Kafka: topics that Flink reads and writes natively.

``kafka("documents")`` is a value for both ends of a pipeline; the Java connector does the work. In
its topic and group ``{job}`` is the name under which the job runs, so that two jobs of one pipeline
share neither offsets nor dead letters. A
record read is ``topic/partition/offset`` by name, its value the raw bytes; with a ``format``, see
``sage_connectors.formats``, messages are decoded and encoded. The plain client for tools and tests
is ``sage_connectors.kafka_client``.
"""

import logging
import re
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

from sage_connectors.formats import Debezium, Format
from sage_connectors.kafka_client import (
    RECORD_BYTES_MAX,
    ensure_topic,
    topic_bytes_max,
    transaction_timeout_ms,
)
from sage_connectors.kafka_connection import connection_of
from sage_connectors.kafka_probe import addresses
from sage_connectors.kafka_security import java_properties
from sage_flink.common.connections import KafkaConnection
from sage_flink.common.connections_file import named_connection, one_address
from sage_flink.common.errors import ConfigError
from sage_flink.common.validation import require
from sage_flink.flow.graph import DEAD_LETTERS

LOG = logging.getLogger(__name__)
Start = Literal["committed", "earliest", "latest"]
Delivery = Literal["exactly_once", "at_least_once"]
#: Placeholder of the name of the job.
JOB = "{job}"
#: What a broker takes as a name, ``.`` and ``..`` apart. Source: Kafka, org.apache.kafka Topic.
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
NAMED = "1 to 249 letters, digits, '.', '_' and '-' (several: with commas, no spaces)"


@dataclass(frozen=True, slots=True)
class Kafka:
    """A topic (to read several: names with commas) at a ``connection`` by its name, or at
    ``servers`` that need no login (empty: the settings').

    As a source: committed records only, offsets in Flink's checkpoints; ``start`` applies to a
    job's first run (``committed``: the group's offsets, earliest where it has none), and
    ``bounded`` ends at the offsets that are the latest when the job starts. As a sink:
    ``exactly_once`` is visible to readers of committed records at the next checkpoint,
    ``at_least_once`` immediately, and may be doubled after a crash; without a format values must be
    bytes, text or None; the key is the record's key, else its id. A record that the topic does not
    take, because it is larger than its ``max.message.bytes``, or its value is another one, is a
    dead letter.
    """

    has_watermarks: ClassVar[bool] = True

    topic: str
    servers: str = ""
    group: str = JOB
    start: Start = "committed"
    bounded: bool = False
    delivery: Delivery = "exactly_once"
    format: Format | None = None
    connection: str = ""
    #: What the name stood for where the spec was made: a worker cannot look it up.
    definition: KafkaConnection | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where, text = f"kafka {self.topic!r}", (self.topic, self.servers, self.group)
        for name, got in zip(("topic", "servers", "group"), text, strict=True):
            require(isinstance(got, str), where, name, "text", got, ConfigError)
        one_address(where, self.connection, "servers", self.servers)
        if self.connection:
            found = named_connection(self.connection, KafkaConnection)
            object.__setattr__(self, "definition", found)
        named = all(map(NAME.fullmatch, self.topic.replace(JOB, "job").split(",")))
        require(named, where, "topic", NAMED, self.topic, ConfigError)
        if self.servers:
            addresses(self.servers)
        require(bool(self.group.strip()), where, "group", "a name", self.group, ConfigError)
        several = isinstance(self.format, Debezium) and "," in self.topic
        one = "of one topic where it is debezium: rows of two tables may share an id"
        require(not several, where, "format", one, self.topic, ConfigError)
        for name, word, words in (
            ("start", self.start, get_args(Start)),
            ("delivery", self.delivery, get_args(Delivery)),
        ):
            require(word in words, where, name, f"one of {', '.join(words)}", word, ConfigError)

    @property
    def brokers(self) -> KafkaConnection:
        """The connection that is named, else the one to ``servers``, else the settings'."""
        return self.definition or connection_of(self.servers)

    @property
    def messages(self) -> "Kafka":
        """The same topic without its format: raw messages."""
        return replace(self, format=None)

    def for_job(self, name: str) -> "Kafka":
        """The same with the name of its job in place of ``{job}``.

        Raises:
            ConfigError: the topic's name would not be one.
        """
        topic, group = self.topic.replace(JOB, name), self.group.replace(JOB, name)
        return replace(self, topic=topic, group=group)

    def prepare(self) -> None:
        """Create absent topics: one partition, unlimited retention, records up to 32 MiB."""
        for topic in self.topic.split(","):
            ensure_topic(topic, servers=self.brokers)

    def flink_source(self, jvm: Any) -> Any:
        """The Java ``KafkaSource<byte[]>`` of encoded records."""
        brokers, native = self.brokers, jvm.org.sage.flink.connector.KafkaConnector
        properties = java_properties(brokers)
        return native.source(
            brokers.servers, self.topic, self.group, self.start, self.bounded, properties
        )

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        """The Java ``KafkaSink<byte[]>`` of encoded records."""
        return _sink(jvm, self.brokers, self.topic, self.delivery, transaction_prefix)

    def within_limits(self, jvm: Any, stream: Any, step: str, *, job: str, run: str) -> Any:
        """The records of ``stream`` that the topic takes; the others are dead letters.

        The worker asks the brokers for the topic's limits. Here a topic that takes less than sage's
        own topics is named in a warning: the job starts, because most records are small.
        """
        brokers, native = self.brokers, jvm.org.sage.flink.connector.TopicLimitsOperator
        bytes_max = topic_bytes_max(self.topic, brokers)
        if bytes_max < RECORD_BYTES_MAX:
            LOG.warning(
                "step %r: topic %r takes messages up to %d bytes, sage's own topics %d: a larger "
                "record becomes a dead letter, a larger dead letter loses its value; to take them "
                "set the topic's max.message.bytes",
                *(step, self.topic, bytes_max, RECORD_BYTES_MAX),
            )
        properties, letters = java_properties(brokers), step == DEAD_LETTERS
        return native.wire(stream, brokers.servers, properties, self.topic, step, job, run, letters)

    def topics_sink(self) -> "KafkaTopics":
        """The sink for all topics at these servers."""
        return KafkaTopics(self.brokers)


@dataclass(frozen=True, slots=True)
class KafkaTopics:
    """All topics of the brokers, as one exactly-once sink: a record names its topic itself."""

    brokers: KafkaConnection

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        """The Java ``KafkaSink<byte[]>`` of encoded records, each with a header ``sage-topic``."""
        return _sink(jvm, self.brokers, "", "exactly_once", transaction_prefix)


def _sink(jvm: Any, brokers: KafkaConnection, topic: str, delivery: str, prefix: str) -> Any:
    native, open_ms = jvm.org.sage.flink.connector.KafkaConnector, transaction_timeout_ms(brokers)
    return native.sink(brokers.servers, topic, delivery, prefix, open_ms, java_properties(brokers))


def kafka(
    topic: str,
    servers: str = "",
    *,
    group: str = JOB,
    start: Start = "committed",
    bounded: bool = False,
    delivery: Delivery = "exactly_once",
    format: Format | None = None,  # noqa: A002 - the name of the field
    connection: str = "",
) -> Kafka:
    """The topic ``topic``, to read from or to write to.

    >>> kafka("documents").delivery
    'exactly_once'
    """
    return Kafka(topic, servers, group, start, bounded, delivery, format, connection)
