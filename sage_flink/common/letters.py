"""Dead letters as they are read: their schema, what a person asks for, and the record inside.

A dead-letter topic holds two kinds of message. A letter is a record that failed, as
:class:`~sage_flink.common.records.Failed` writes it; letters without ``v`` are older and are read
as well. A marker says that the letter at a position was taken by a replay. Both name themselves in
Kafka headers (``sage-step`` and ``sage-job``, ``sage-replayed``), so that most need no parsing.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sage_flink.common import payload
from sage_flink.common.errors import Rejected
from sage_flink.common.payload import Encoding
from sage_flink.common.records import Record

STEP, JOB, RUN, REPLAYED = "sage-step", "sage-job", "sage-run", "sage-replayed"


class Base64(BaseModel):
    """Bytes that are no text."""

    model_config = ConfigDict(frozen=True)

    base64: str


class Letter(BaseModel):
    """A record that a step refused, with all that is needed to make the very record again."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="The record's id; a replay keeps it.")
    step: str = Field(description="The step that refused it; a replay enters here.")
    reason: str
    attempts: int = Field(ge=0, description="How often the step tried.")
    payload: str = Field(description="The record's value, as payload_encoding says.")
    payload_encoding: Encoding = Field(
        description="text: bytes that are UTF-8; base64: other bytes; json: any other value, where "
        "an object with the one key base64, utf8, map, msgpack or repr stands for what JSON lacks."
    )
    origin: str = Field("", description="The source record it came from.")
    timestamp_ms: int = Field(0, description="The record's event time, since the epoch.")
    key: str | Base64 | None = None
    headers: dict[str, str | Base64] = {}
    job: str = Field("", description="The job that refused it; '' before version 1.")
    v: Literal[0, 1] = Field(0, description="Version of the envelope; 0 had no such field.")

    def record(self) -> Record:
        """The record that failed: same id, value, origin, time, key and headers.

        Raises:
            Rejected: the letter holds only how the value looked.
        """
        tags = frozenset({"base64"}) if self.v == 0 else None
        return Record(
            id=self.id,
            value=payload.read(self.payload, self.payload_encoding, tags=tags),
            timestamp_ms=self.timestamp_ms,
            key=None if self.key is None else _bytes(self.key),
            headers={name: _bytes(value) for name, value in self.headers.items()},
            origin=self.origin,
        )


class Marker(BaseModel):
    """Says that a replay has taken the letter at a position of this topic."""

    model_config = ConfigDict(frozen=True)

    v: Literal[1] = 1
    replayed: str = Field(description="topic/partition/offset of the letter.")


_EITHER: TypeAdapter[Letter | Marker] = TypeAdapter(Letter | Marker)


@dataclass(frozen=True, slots=True)
class Posted:
    """A letter where it stands: ``topic/partition/offset``, and when it was written.

    ``run`` is the Flink job that wrote it, a replay maybe. ``also`` are the positions of letters
    that hold the very same record.
    """

    position: str
    posted_ms: int
    letter: Letter
    run: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are asked for; all that is given must fit."""

    step: str = ""
    reason: re.Pattern[str] | None = None
    since_ms: int = 0
    id: str = ""

    def may_be(self, message: Record) -> bool:
        """Whether a message may be asked for, by what is known without parsing it."""
        step = message.headers.get(STEP)
        return (
            message.timestamp_ms >= self.since_ms
            and (not self.step or step is None or step == self.step.encode())
            and (not self.id or message.key is None or message.key == self.id.encode())
        )

    def __call__(self, posted: Posted) -> bool:
        """Whether the letter is asked for."""
        letter = posted.letter
        return (
            posted.posted_ms >= self.since_ms
            and (not self.step or letter.step == self.step)
            and (not self.id or letter.id == self.id)
            and (self.reason is None or self.reason.search(letter.reason) is not None)
        )


def read(message: Record) -> Letter | Marker:
    """What a message of a dead-letter topic holds.

    Raises:
        Rejected: neither a letter nor a marker, or of a later version.
    """
    try:
        return _EITHER.validate_json(message.value or b"")
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise Rejected(f"{message.id}: neither a letter nor a marker: {said}") from error


def letter_message(letter: bytes, id_: str, step: str, job: str, run: str) -> Record:
    """A letter's JSON as the message of a topic, under the id of its record.

    Its time is the broker's: when it was written. ``run`` is the Flink job, ``job`` the one whose
    ids it keeps: they differ in a replay.
    """
    named = {STEP: step.encode(), JOB: job.encode(), RUN: run.encode()}
    return Record(id=id_, value=letter, key=id_.encode(), headers=named)


def marker_message(posted: Posted, position: str) -> Record:
    """The message that marks the letter at ``position`` as replayed."""
    marker = Marker(replayed=position)
    return Record(
        id=f"replayed/{position}",
        value=marker.model_dump_json().encode(),
        key=posted.letter.id.encode(),
        headers={REPLAYED: position.encode(), JOB: posted.letter.job.encode()},
    )


def distinct(letters: Iterable[Posted], wanted: Wanted) -> Iterator[Posted]:
    """Each record once: of letters with the same record at the same step, the first stands for all.

    A source that is read twice, after a job is submitted again say, writes its failures twice; all
    of them are taken when one is wanted, or the record would be replayed twice.
    """
    groups: dict[Any, list[Posted]] = {}
    for posted in letters:
        same = posted.letter.model_copy(update={"reason": "", "attempts": 0})
        groups.setdefault(msgspec.json.encode(same.model_dump()), []).append(posted)
    for first, *others in filter(lambda group: any(map(wanted, group)), groups.values()):
        yield replace(first, also=tuple(other.position for other in others))


def kind(reason: str) -> str:
    """The reason without its numbers, so that reasons of a kind can be counted.

    >>> kind("field 'text' has 10000000 bytes; at most 4000000")
    "field 'text' has # bytes; at most #"
    """
    return re.sub(r"\b\d+(\.\d+)?", "#", reason)


def schema() -> dict[str, Any]:
    """The JSON schema of what a dead-letter topic holds; ``letter.schema.json`` is the same."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A message of a dead-letter topic",
        **_EITHER.json_schema(),
    }


def _bytes(said: str | Base64) -> bytes:
    return payload.unblob(said if isinstance(said, str) else {"base64": said.base64})
