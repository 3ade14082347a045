"""Reads a dead-letter topic for tools: the failed records, and which of them were replayed."""

from collections.abc import Callable
from dataclasses import dataclass

from sage_connectors.kafka_client import drain, end_offsets
from sage_connectors.kafka_connection import Brokers
from sage_flink.common.dead_letters import REPLAYED, DeadLetter, DeadLetterFilter, from_message
from sage_flink.common.errors import Rejected


@dataclass(frozen=True, slots=True)
class DeadLetterTopic:
    """What a topic holds: the dead letters that match, the oldest first.

    ``replayed`` are the positions that replay marks name, whatever the filter. ``other_messages``
    counts the messages that are neither dead letters nor replay marks.
    """

    letters: tuple[DeadLetter, ...]
    replayed: frozenset[str]
    other_messages: int

    @property
    def open(self) -> tuple[DeadLetter, ...]:
        """The dead letters that were not replayed."""
        return tuple(letter for letter in self.letters if letter.position not in self.replayed)


def read_dead_letters(
    topic: str,
    servers: Brokers = "",
    *,
    chosen: DeadLetterFilter | None = None,
    values: bool = True,
    on_progress: Callable[[int], object] = lambda messages: None,
) -> DeadLetterTopic:
    """The committed dead letters of ``topic`` that match ``chosen``; they are kept in memory.

    Without ``values`` the records' values are dropped as they are read. ``on_progress`` gets the
    number of messages read so far.

    Raises:
        ConfigError: there is no such topic.
        StoreUnavailable: the broker does not answer.
    """
    chosen = chosen or DeadLetterFilter()
    letters, replayed, other_messages = list[DeadLetter](), set[str](), 0
    for number, message in enumerate(drain(topic, servers), start=1):
        on_progress(number)
        if REPLAYED in message.headers:
            replayed.add(message.headers[REPLAYED].decode(errors="replace"))
            continue
        try:
            letter = from_message(message if values else message.replace(value=b""))
        except Rejected:
            other_messages += 1
            continue
        if chosen.matches(letter):
            letters.append(letter)
    letters.sort(key=lambda letter: letter.posted_ms)
    return DeadLetterTopic(tuple(letters), frozenset(replayed), other_messages)


def message_count(topic: str, servers: Brokers = "") -> int:
    """About how many messages the topic holds: the sum of its end offsets.

    Raises:
        ConfigError: there is no such topic.
        StoreUnavailable: the broker does not answer.
    """
    return sum(end_offsets(topic, servers).values())
