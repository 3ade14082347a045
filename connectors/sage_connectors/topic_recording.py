"""Records a topic into a file and replays it: with its partitions, timestamps and timing.

A message that arrives while it is recorded has the recorder's clock as its arrival. One that was in
the topic before has its timestamp, or that of an earlier message of its partition if that is later;
and never a time that is yet to come. So late messages keep their place in the stream.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sage_connectors.kafka_client import (
    Message,
    end_offsets,
    ensure_topic,
    feed,
    open_consumer,
    partitions_of,
)
from sage_connectors.kafka_connection import Brokers
from sage_connectors.recording_file import (
    MAGIC,
    VERSION,
    RecordedMessage,
    Recording,
    RecordingReader,
    RecordingWriter,
)
from sage_flink.common.errors import ConfigError

POLL_MS = 100
#: What a partition has in memory while another one is behind; then it is read no further.
BUFFERED_MAX, BUFFERED_BYTES_MAX = 20_000, 8 << 20
FETCH_BYTES_MAX = 1 << 20


@dataclass(slots=True)
class _Backlog:
    """Messages that were in the topic before, merged over the partitions by their arrival."""

    ends: dict[Any, int]
    queues: dict[Any, deque[RecordedMessage]] = field(init=False)
    latest_us: dict[Any, int] = field(init=False)
    bytes: dict[Any, int] = field(init=False)
    positions: dict[Any, int] = field(init=False, default_factory=dict)
    is_done: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.queues = {partition: deque() for partition in self.ends}
        self.latest_us, self.bytes = dict.fromkeys(self.ends, 0), dict.fromkeys(self.ends, 0)

    def add(self, partition: Any, message: Any, now_us: int) -> None:
        arrival_us = max(self.latest_us[partition], min(message.timestamp * 1000, now_us))
        self.latest_us[partition] = arrival_us
        self.queues[partition].append(_record_of(message, arrival_us))
        self.bytes[partition] += len(message.value or b"")

    def due(self, consumer: Any) -> Iterator[RecordedMessage]:
        """Those with no earlier one to come; then what is read next is chosen."""
        assigned = consumer.assignment()
        self.positions |= {p: consumer.position(p) for p in assigned}
        waits = {p for p, end in self.ends.items() if self.positions[p] < end}
        while ready := {p: queue[0] for p, queue in self.queues.items() if queue}:
            if any(not self.queues[p] for p in waits):
                break
            first = min(ready, key=lambda p: (ready[p].arrival_us, p.partition))
            self.bytes[first] -= len(ready[first].value or b"")
            yield self.queues[first].popleft()
        wanted = {p for p in waits if p in assigned and not self._is_full(p)}
        wanted |= {p for p in waits if not self.queues[p]}
        if not waits and not any(self.queues.values()):
            self.is_done, wanted = True, {*self.ends}
        self._read_only(consumer, wanted)

    def _is_full(self, partition: Any) -> bool:
        many = len(self.queues[partition]) >= BUFFERED_MAX
        return many or self.bytes[partition] >= BUFFERED_BYTES_MAX

    def _read_only(self, consumer: Any, wanted: set[Any]) -> None:
        # Not pause and resume: kafka-python 3.0.12 never reads some partitions again after them.
        if wanted and wanted != consumer.assignment():
            consumer.assign(sorted(wanted))
            for partition in wanted:
                consumer.seek(partition, self.positions[partition])


class TopicRecord(NamedTuple):
    """How many messages were recorded, and whether KeyboardInterrupt ended it."""

    messages: int
    interrupted: bool = False


def record(
    topic: str,
    path: Path,
    servers: Brokers = "",
    *,
    for_s: float | None = None,
    count: int | None = None,
    from_beginning: bool = False,
    on_progress: Callable[[int], object] = lambda messages: None,
) -> TopicRecord:
    """Record the committed messages of the topic that arrive from now on.

    With ``from_beginning`` also those that are there. It ends after ``for_s`` seconds, after
    ``count`` messages, or with KeyboardInterrupt, and keeps what it has. It waits for a broker that
    disappears.

    Raises:
        ConfigError: there is no such topic, or the file exists.
        StoreUnavailable: the broker is away when it starts.
    """
    started_s = time.monotonic()
    with open_consumer(servers, True, FETCH_BYTES_MAX) as consumer:
        partitions = partitions_of(consumer, topic)
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        begins = consumer.beginning_offsets(partitions) if from_beginning else ends
        for partition in partitions:
            consumer.seek(partition, begins[partition])
        head = Recording(MAGIC, VERSION, topic, len(partitions), int(time.time() * 1000))
        with RecordingWriter(path, head) as writer:
            try:
                for message in _messages(consumer, _Backlog(ends), writer, started_s, for_s):
                    if count is not None and writer.messages >= count:
                        break
                    if message is not None:
                        writer.write(message)
                    on_progress(writer.messages)
            except KeyboardInterrupt:
                return TopicRecord(writer.messages, interrupted=True)
            return TopicRecord(writer.messages)


def _messages(
    consumer: Any, backlog: _Backlog, writer: RecordingWriter, started_s: float, for_s: float | None
) -> Iterator[RecordedMessage | None]:
    """The messages by arrival, and None after each poll, until ``for_s`` seconds have passed."""
    live: list[RecordedMessage] = []
    while for_s is None or time.monotonic() - started_s < for_s:
        batches, now_us = consumer.poll(timeout_ms=POLL_MS), time.time_ns() // 1000
        for partition, batch in batches.items():
            for message in batch:
                if message.offset < backlog.ends[partition]:
                    backlog.add(partition, message, now_us)
                else:
                    live.append(_record_of(message, now_us))
        if not backlog.is_done:
            yield from backlog.due(consumer)
        if backlog.is_done:
            yield from live
            live = []
        writer.flush()
        yield None


def _record_of(message: Any, arrival_us: int) -> RecordedMessage:
    return RecordedMessage(
        message.partition,
        message.offset,
        arrival_us,
        message.timestamp,
        message.key,
        message.value,
        tuple(message.headers),
    )


@dataclass(slots=True)
class TopicReplay:
    """How many messages were sent, in which time, and how far behind the recording at most."""

    messages: int = 0
    seconds: float = 0.0
    behind_s_max: float = 0.0
    #: Whether the recording has its end.
    complete: bool = True
    interrupted: bool = False


def replay(
    path: Path,
    topic: str,
    servers: Brokers = "",
    *,
    speed: float | None = 1.0,
    shift_to_now: bool = False,
    on_progress: Callable[[int], object] = lambda messages: None,
) -> TopicReplay:
    """Write a recording into the topic, message by message into its former partition.

    The gaps are the recorded ones divided by ``speed``; with None there are none. Timestamps are
    the recorded ones; with ``shift_to_now`` all are moved by one distance, that from the first
    message's arrival to now. An absent topic is created with as many partitions as the recorded
    one. KeyboardInterrupt ends it; what was sent is in the topic. A header without a value gets an
    empty one, and so does a message without key and value: the client sends no others.

    Raises:
        ConfigError: the file is no recording, the topic has fewer partitions, or takes no message
            of that size or with that timestamp.
        StoreUnavailable: the broker is away; some of the messages may be stored.
    """
    result, started_s = TopicReplay(), time.monotonic()
    with RecordingReader(path) as reader:
        ensure_topic(topic, reader.head.partitions, servers)
        if (found := len(end_offsets(topic, servers))) < reader.head.partitions:
            raise ConfigError(
                f"topic {topic!r} has {found} partitions, the recorded one "
                f"{reader.head.partitions}; replay into a topic that is not there yet, or add "
                "partitions to it"
            )
        paced = _messages_when_due(reader, result, speed, shift_to_now)
        result.messages = feed(topic, paced, servers, on_progress=on_progress)
        result.complete = reader.complete
    result.seconds = time.monotonic() - started_s
    return result


def _messages_when_due(
    reader: RecordingReader, result: TopicReplay, speed: float | None, shift_to_now: bool
) -> Iterator[Message]:
    """The messages, each when it is due."""
    first_us: int | None = None
    shift_ms, started_s = 0, time.monotonic()
    try:
        for message in reader:
            if first_us is None:
                first_us, started_s = message.arrival_us, time.monotonic()
                if shift_to_now:
                    shift_ms = round(time.time() * 1000 - first_us / 1000)
            if speed is not None:
                due_s = started_s + (message.arrival_us - first_us) / 1e6 / speed
                wait_s = due_s - time.monotonic()
                result.behind_s_max = max(result.behind_s_max, -wait_s)
                time.sleep(max(0.0, wait_s))
            timestamp_ms = message.timestamp_ms + shift_ms if message.timestamp_ms >= 0 else None
            value = b"" if message.key is message.value is None else message.value
            headers = [(name, content or b"") for name, content in message.headers]
            yield message.key, value, headers, timestamp_ms, message.partition
    except KeyboardInterrupt:
        result.interrupted = True
