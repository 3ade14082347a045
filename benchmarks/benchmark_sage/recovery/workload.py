"""Job under test in the drills: every kind of step and every kind of sink of the data plane.

::

    Kafka -> decode -> generate (chat) -> answers     Kafka, exactly once
                                       -> embed ----> Milvus
                                       -> measure --> InfluxDB

An event has an id and a text; the mock engine answers a text with its checksum, so that each output
row can be compared with its input.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import Record, Rejected
from sage_flink.operators import EncodeJson, measure

#: Event time of the first event. Events are one millisecond apart, so that each is its own point.
FIRST_MS = 1_700_000_000_000
DIM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Names of the job's topics and collections, and the limits of its calls."""

    name: str
    model: str = "mock-chat"
    capacity: int = 64
    timeout_s: float = 120.0
    attempts_max: int = 100
    stores: bool = True

    @property
    def topic(self) -> str:
        """The topic of the events."""
        return f"{self.name}.events"

    @property
    def answers(self) -> str:
        """The topic of the answers, written exactly once."""
        return f"{self.name}.answers"

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic."""
        return f"{self.name}.dead-letters"


@dataclass(frozen=True, slots=True)
class DecodeEvent:
    """Decodes a message to a chat request about its text; the record gets the event's id."""

    def __call__(self, record: Record) -> Iterable[Record]:
        """The chat request.

        Raises:
            Rejected: the message is not an event.
        """
        try:
            fields = msgspec.json.decode(record.value, type=dict[str, str])
            asked, text = fields["id"], fields["text"]
        except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise Rejected(f"not an event: {error!r:.200}") from error
        if not text.strip():
            raise Rejected("the text is empty")
        messages = [{"role": "user", "content": text}]
        return (record.replace(id=asked, value={"text": text, "messages": messages}),)


@dataclass(frozen=True, slots=True)
class TakeAnswer:
    """Reduces an answered record to ``{"id", "text", "answer"}``."""

    def __call__(self, record: Record) -> Iterable[Record]:
        """The record without the fields of the call."""
        value = {key: record.value[key] for key in ("text", "answer")}
        return (record.replace(value={"id": record.id, **value}),)


def build(work: Workload) -> sage.flow.Graph:
    """The graph; building it needs no server."""
    limits: dict[str, Any] = {
        "capacity": work.capacity,
        "timeout_s": work.timeout_s,
        "retry": sage.flow.Retry(work.attempts_max),
    }
    answered = (
        sage.flow.read("events", kafka(work.topic, group=work.name))
        .flat_map("decode", DecodeEvent())
        .call("generate", sage.chat(model=work.model, tokens_max=16), **limits)
        .flat_map("answer", TakeAnswer())
    )
    branches = [answered.flat_map("json", EncodeJson()).write("answers", kafka(work.answers))]
    if work.stores:
        vectors = answered.call("embed", sage.embed(model="mock-embed"), **limits)
        points = answered.flat_map("measure", measure("answers", fields=("text",)))
        branches += [
            vectors.write("vectors", sage.db.collection(work.name, dim=DIM)),
            points.write("telemetry", sage.tsdb.bucket(work.name)),
        ]
    return sage.flow.pipeline(*branches).dead_letters_to(kafka(work.dead_letters))


def event(id_: str, text: str) -> bytes:
    """The message of one event."""
    return msgspec.json.encode({"id": id_, "text": text})


def expected_answer(text: str) -> str:
    """The mock engine's answer to ``text``."""
    return f"sum:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def event_of(number: int) -> tuple[str, str]:
    """Id and text of an event; the texts differ in length and content."""
    return f"event/{number:06d}", f"Event number {number}. " + "All is well. " * (number % 17)


def events(count: int) -> Iterator[tuple[str, str]]:
    """Id and text of ``count`` events."""
    return map(event_of, range(count))
