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
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from sage_connectors.formats import Debezium, Format
from sage_connectors.kafka_client import (
    RECORD_BYTES_MAX,
    ensure_topic,
    topic_bytes_max,
    transaction_timeout_ms,
)
from sage_connectors.kafka_connection import addresses, servers_of
from sage_flink.common.errors import ConfigError
from sage_flink.common.validation import require
from sage_flink.flow.graph import DEAD_LETTERS

LOG = logging.getLogger(__name__)
Start = Literal["committed", "earliest", "latest"]
Delivery = Literal["exactly_once", "at_least_once"]
#: Stands for the name of the job.
JOB = "{job}"
#: What a broker takes as a name, ``.`` and ``..`` apart. Source: Kafka, org.apache.kafka Topic.
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
NAMED = "1 to 249 letters, digits, '.', '_' and '-' (several: with commas, no spaces)"


@dataclass(frozen=True, slots=True)
class Kafka:
    """A topic (to read several: names with commas) at ``servers`` (empty: the settings').

    As a source: committed records only, offsets in Flink's checkpoints; ``start`` applies to a
    job's first run (``committed``: the group's offsets, earliest where it has none), and
    ``bounded`` ends at the offsets that are the latest when the job starts. As a sink:
    ``exactly_once`` is visible to readers of committed records at the next checkpoint,
    ``at_least_once`` immediately, and may be doubled after a crash; without a format values must be
    bytes, text or None; the key is the record's key, else its id. A record that the topic does not
    take, because it is larger than its ``max.message.bytes``, or its value is another one, is a
    dead letter.
    """

    topic: str
    servers: str = ""
    group: str = JOB
    start: Start = "committed"
    bounded: bool = False
    delivery: Delivery = "exactly_once"
    format: Format | None = None

    def __post_init__(self) -> None:
        where, text = f"kafka {self.topic!r}", (self.topic, self.servers, self.group)
        for field, got in zip(("topic", "servers", "group"), text, strict=True):
            require(isinstance(got, str), where, field, "text", got, ConfigError)
        named = all(map(NAME.fullmatch, self.topic.replace(JOB, "job").split(",")))
        require(named, where, "topic", NAMED, self.topic, ConfigError)
        if self.servers:
            addresses(self.servers)
        require(bool(self.group.strip()), where, "group", "a name", self.group, ConfigError)
        several = isinstance(self.format, Debezium) and "," in self.topic
        one = "of one topic where it is debezium: rows of two tables may share an id"
        require(not several, where, "format", one, self.topic, ConfigError)
        for field, word, words in (
            ("start", self.start, get_args(Start)),
            ("delivery", self.delivery, get_args(Delivery)),
        ):
            require(word in words, where, field, f"one of {', '.join(words)}", word, ConfigError)

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
            ensure_topic(topic, servers=self.servers)

    def flink_source(self, jvm: Any) -> Any:
        """The Java ``KafkaSource<byte[]>`` of encoded records."""
        servers = servers_of(self.servers)
        native = jvm.org.sage.flink.connector.KafkaConnector
        return native.source(servers, self.topic, self.group, self.start, self.bounded)

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        """The Java ``KafkaSink<byte[]>`` of encoded records."""
        servers = servers_of(self.servers)
        native = jvm.org.sage.flink.connector.KafkaConnector
        open_ms = transaction_timeout_ms(servers)
        return native.sink(servers, self.topic, self.delivery, transaction_prefix, open_ms)

    def within_limits(self, jvm: Any, stream: Any, step: str, *, job: str, run: str) -> Any:
        """The records of ``stream`` that the topic takes; the others are dead letters.

        The worker asks the brokers for the topic's limits. Here a topic that takes less than sage's
        own topics is named in a warning: the job starts, because most records are small.
        """
        servers, native = servers_of(self.servers), jvm.org.sage.flink.connector.TopicLimitsOperator
        bytes_max = topic_bytes_max(self.topic, servers)
        if bytes_max < RECORD_BYTES_MAX:
            LOG.warning(
                "step %r: topic %r takes messages up to %d bytes, sage's own topics %d: a larger "
                "record becomes a dead letter, a larger dead letter loses its value; to take them "
                "set the topic's max.message.bytes",
                *(step, self.topic, bytes_max, RECORD_BYTES_MAX),
            )
        letters = step == DEAD_LETTERS
        return native.wire(stream, servers, self.topic, step, job, run, letters)

    def topics_sink(self) -> "KafkaTopics":
        """The sink for all topics at these servers."""
        return KafkaTopics(servers_of(self.servers))


@dataclass(frozen=True, slots=True)
class KafkaTopics:
    """All topics at ``servers``, as one exactly-once sink: a record names its topic itself."""

    servers: str = ""

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        """The Java ``KafkaSink<byte[]>`` of encoded records, each with a header ``sage-topic``."""
        servers = servers_of(self.servers)
        native = jvm.org.sage.flink.connector.KafkaConnector
        open_ms = transaction_timeout_ms(servers)
        return native.sink(servers, "", "exactly_once", transaction_prefix, open_ms)


def kafka(
    topic: str,
    servers: str = "",
    *,
    group: str = JOB,
    start: Start = "committed",
    bounded: bool = False,
    delivery: Delivery = "exactly_once",
    format: Format | None = None,  # noqa: A002 - the name of the field
) -> Kafka:
    """The topic ``topic``, to read from or to write to.

    >>> kafka("documents").delivery
    'exactly_once'
    """
    return Kafka(topic, servers, group, start, bounded, delivery, format)
