"""The letters of a dead-letter topic, as tools read them."""

from collections.abc import Callable
from dataclasses import dataclass

from sage_connectors.kafka_client import drain, end_offsets
from sage_flink.common.errors import Rejected
from sage_flink.common.letters import REPLAYED, RUN, Letter, Marker, Posted, Wanted, read
from sage_flink.common.records import Record


@dataclass(frozen=True, slots=True)
class Found:
    """What a topic held: the letters asked for, the oldest first, and what became of all letters.

    ``replayed`` are the positions that markers name, whatever was asked for. ``strange`` counts the
    messages that are neither letters nor markers.
    """

    letters: tuple[Posted, ...]
    replayed: frozenset[str]
    strange: int

    @property
    def open(self) -> tuple[Posted, ...]:
        """The letters that no replay has taken."""
        return tuple(posted for posted in self.letters if posted.position not in self.replayed)


def find(
    topic: str,
    servers: str = "",
    *,
    wanted: Wanted | None = None,
    payloads: bool = True,
    on_progress: Callable[[int], object] = lambda messages: None,
) -> Found:
    """The committed letters of ``topic`` that are ``wanted``; all are held in memory.

    Without ``payloads`` they are dropped as they are read. ``on_progress`` is told how many
    messages were read.

    Raises:
        ConfigError: there is no such topic.
        StoreUnavailable: the broker is away.
    """
    wanted = wanted or Wanted()
    letters, replayed, strange = [], set(), 0
    for number, message in enumerate(drain(topic, servers), start=1):
        on_progress(number)
        if REPLAYED in message.headers:
            replayed.add(message.headers[REPLAYED].decode(errors="replace"))
        elif wanted.may_be(message):
            try:
                said = read(message)
            except Rejected:
                strange += 1
                continue
            if isinstance(said, Marker):
                replayed.add(said.replayed)
                continue
            posted = _posted(message, said if payloads else _bare(said))
            if wanted(posted):
                letters.append(posted)
    letters.sort(key=lambda posted: posted.posted_ms)
    return Found(tuple(letters), frozenset(replayed), strange)


def size(topic: str, servers: str = "") -> int:
    """About how many messages the topic holds: what its offsets count.

    Raises:
        ConfigError: there is no such topic.
        StoreUnavailable: the broker is away.
    """
    return sum(end_offsets(topic, servers).values())


def _posted(message: Record, letter: Letter) -> Posted:
    run = message.headers.get(RUN, b"").decode(errors="replace")
    return Posted(message.id, message.timestamp_ms, letter, run)


def _bare(letter: Letter) -> Letter:
    return letter.model_copy(update={"payload": ""})
