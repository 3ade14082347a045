"""Dead letters: failed records as messages of a Kafka topic, the failure in their headers.

A message has the key, the headers and the value of the record that failed; a value that was bytes
is those bytes. The failure and what else a replay needs is in headers named
``sage.dead-letter.<field>``, each UTF-8 text (a header of the record with such a name is dropped):

===========================  =============================================================
``id``, ``step``             the record's id and the step that refused it
``reason``, ``attempts``     why, in at most 2,000 characters, and how often the step tried
``job``, ``run``             the job, and the Flink job that ran it (they differ in a replay)
``origin``                   the source record: ``topic/partition/offset``, or a file's path
``timestamp-ms``             the record's event time; the message's time is that of the failure
``encoding``                 of the value, see :mod:`~sage_flink.common.value_encoding`
``key``                      ``null`` where the record had no key; the message has its id then
``kind``                     ``delete`` for a delete, with ``document`` and ``version``
===========================  =============================================================

A message has at most ``MESSAGE_BYTES_MAX`` bytes, below the 32 MiB that Kafka takes: a larger one
would fail the job for good. Of a larger record the value is omitted; its encoding is ``omitted``
then, and in its place are its size and its source record. Where that is not enough, the record's
key and headers are omitted too, and its names are cut. Such a dead letter cannot be replayed.

A replay writes replay marks into the topic: messages whose one header, named
``sage.dead-letter.replayed``, is the position of the dead letter that was replayed.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import FailedRecord, Record, is_timestamp_ms
from sage_flink.common.value_encoding import from_bytes, to_bytes

PREFIX = "sage.dead-letter."
REPLAYED = f"{PREFIX}replayed"
REASON_CHARS_MAX = 2_000
#: Of the key, the headers and the value together. The Java connector's limit on a message is
#: 32 MiB; the rest is for what Kafka and the wire form add.
MESSAGE_BYTES_MAX = 31 << 20
_NO_KEY = b"null"
#: What Kafka adds to a header, at most.
_HEADER_BYTES = 10
_NAME_CHARS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of a dead-letter topic: why a record failed, and the record.

    ``position`` is ``topic/partition/offset``, ``posted_ms`` when it was written. ``run`` is the
    Flink job that wrote it, a replay maybe. ``also`` are the positions of dead letters that hold
    the very same record.
    """

    position: str
    posted_ms: int
    id: str
    step: str
    reason: str
    attempts: int
    job: str
    run: str
    encoding: str
    message: Record = field(repr=False)
    also: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The source record of the failed record."""
        return _header(self.message, "origin")

    @property
    def timestamp_ms(self) -> int:
        """The event time of the failed record."""
        return int(_header(self.message, "timestamp-ms") or 0)

    @property
    def kind(self) -> Literal["upsert", "delete"]:
        """The kind of the failed record."""
        return "delete" if _header(self.message, "kind") == "delete" else "upsert"

    @property
    def key(self) -> bytes | None:
        """The key of the failed record."""
        absent = self.message.headers.get(f"{PREFIX}key") == _NO_KEY
        return None if absent else self.message.key

    @property
    def headers(self) -> dict[str, bytes]:
        """The headers of the failed record."""
        mine = self.message.headers.items()
        return {name: value for name, value in mine if not name.startswith(PREFIX)}

    def record(self) -> Record:
        """The record that failed: same id, value, origin, time, key, headers and kind.

        Raises:
            Rejected: the message holds only how the value looked, or the value was omitted.
        """
        return Record(
            id=self.id,
            value=from_bytes(self.message.value, self.encoding),
            timestamp_ms=self.timestamp_ms,
            key=self.key,
            headers=self.headers,
            origin=self.origin,
            kind=self.kind,
            document=_header(self.message, "document"),
            version=_header(self.message, "version"),
        )


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters to take; all conditions that are set must hold."""

    step: str = ""
    reason: re.Pattern[str] | None = None
    since_ms: int = 0
    id: str = ""

    def matches(self, letter: DeadLetter) -> bool:
        """Whether all conditions hold."""
        return (
            letter.posted_ms >= self.since_ms
            and (not self.step or letter.step == self.step)
            and (not self.id or letter.id == self.id)
            and (self.reason is None or self.reason.search(letter.reason) is not None)
        )


def to_message(failed: FailedRecord, job: str, run: str = "") -> Record:
    """The message of a failed record of ``job``; ``run`` is the Flink job that ran it.

    Its time is left to the broker: when it is written.
    """
    value, encoding = to_bytes(failed.record.value)
    message = _message(failed, job, run, value, encoding)
    if (size := _size(message)) <= MESSAGE_BYTES_MAX:
        return message
    source = _cut(failed.record.origin or failed.record.id, _NAME_CHARS_MAX)
    note = (
        f"the record has {size} bytes with its key and headers, a dead letter at most "
        f"{MESSAGE_BYTES_MAX}; its source record is {source!r}"
    )
    message = _message(failed, job, run, _text(note), "omitted")
    if _size(message) <= MESSAGE_BYTES_MAX:
        return message
    note += "; its key and headers were omitted too, and its names are cut"
    failed = msgspec.structs.replace(failed, record=_with_names_only(failed.record))
    return _message(failed, job, run, _text(note), "omitted")


def without_value(message: Record, reason: str) -> Record:
    """A dead letter that its sink did not take, with ``reason`` in place of the record's value."""
    note = f"the dead letter could not be written with its value: {reason}"
    headers = {**message.headers, f"{PREFIX}encoding": b"omitted"}
    return message.replace(value=_text(note[:REASON_CHARS_MAX]), headers=headers)


def _message(
    failed: FailedRecord, job: str, run: str, value: bytes | None, encoding: str
) -> Record:
    record = failed.record
    fields: dict[str, str] = {
        "id": record.id,
        "step": failed.step,
        "reason": _cut(failed.reason, REASON_CHARS_MAX),
        "attempts": str(failed.attempts),
        "job": job,
        "run": run or job,
        "origin": record.origin or record.id,
        "timestamp-ms": str(record.timestamp_ms),
        "encoding": encoding,
    }
    if record.key is None:
        fields["key"] = _NO_KEY.decode()
    if record.kind == "delete":
        fields |= {"kind": "delete", "document": record.document, "version": record.version}
    own = ((_text(name).decode(), value) for name, value in record.headers.items())
    headers = {name: value for name, value in own if not name.startswith(PREFIX)}
    headers |= {f"{PREFIX}{name}": _text(text) for name, text in fields.items()}
    return Record(_text(record.id).decode(), value, key=record.key, headers=headers)


def _size(message: Record) -> int:
    key = _text(message.id) if message.key is None else message.key
    headers = (len(_text(n)) + len(value) + _HEADER_BYTES for n, value in message.headers.items())
    return len(key) + len(message.value or b"") + sum(headers)


def _cut(text: str, chars_max: int) -> str:
    """The text, or its start with a note that the rest was cut."""
    if len(text) <= chars_max:
        return text
    return f"{text[:chars_max]} ... (cut, {len(text)} characters in all)"


def _with_names_only(record: Record) -> Record:
    fields = ("id", "origin", "document", "version")
    names = {name: _cut(getattr(record, name), _NAME_CHARS_MAX) for name in fields}
    return record.replace(**names, key=None, headers={})


def from_message(message: Record) -> DeadLetter:
    """The dead letter in a message of a topic.

    Raises:
        Rejected: the message is not a dead letter.
    """
    fields = ("id", "step", "reason", "attempts", "encoding")
    if missing := [name for name in fields if f"{PREFIX}{name}" not in message.headers]:
        raise Rejected(f"{message.id}: not a dead letter: no header {PREFIX}{missing[0]}")
    attempts = _header(message, "attempts")
    if not re.fullmatch("[0-9]{1,9}", attempts):
        raise Rejected(f"{message.id}: not a dead letter: attempts is {attempts!r:.100}")
    time_ms = _header(message, "timestamp-ms")
    if time_ms and not (re.fullmatch("-?[0-9]{1,19}", time_ms) and is_timestamp_ms(int(time_ms))):
        raise Rejected(f"{message.id}: not a dead letter: timestamp-ms is {time_ms!r:.100}")
    return DeadLetter(
        position=message.id,
        posted_ms=message.timestamp_ms,
        id=_header(message, "id"),
        step=_header(message, "step"),
        reason=_header(message, "reason"),
        attempts=int(attempts),
        job=_header(message, "job"),
        run=_header(message, "run"),
        encoding=_header(message, "encoding"),
        message=message,
    )


def replay_mark(letter: DeadLetter, position: str) -> Record:
    """The message that marks the dead letter at ``position`` as replayed."""
    place = position.encode()
    return Record(f"replayed/{position}", place, key=letter.id.encode(), headers={REPLAYED: place})


def distinct(letters: Iterable[DeadLetter], chosen: DeadLetterFilter) -> Iterator[DeadLetter]:
    """Each record once: of dead letters of one record at one step, the first represents all.

    A source that is read twice, after a job is submitted again for example, writes its failures
    twice. When one of them is chosen all are taken, or the record would be replayed twice.
    """
    groups: dict[Any, list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault(_identity(letter), []).append(letter)
    for first, *others in groups.values():
        if any(map(chosen.matches, (first, *others))):
            yield replace(first, also=tuple(other.position for other in others))


def reason_class(reason: str) -> str:
    """The reason without its numbers, to count reasons that are alike.

    >>> reason_class("field 'text' has 10000000 bytes; at most 4000000")
    "field 'text' has # bytes; at most #"
    """
    return re.sub(r"\b\d+(\.\d+)?", "#", reason)


def _identity(letter: DeadLetter) -> Any:
    differ = {f"{PREFIX}{name}" for name in ("reason", "attempts", "run")}
    headers = ((k, v) for k, v in letter.message.headers.items() if k not in differ)
    return letter.message.key, letter.message.value, tuple(sorted(headers))


def _header(message: Record, name: str) -> str:
    return message.headers.get(f"{PREFIX}{name}", b"").decode(errors="replace")


def _text(text: str) -> bytes:
    """UTF-8, surrogates spelled as ``\\udc80``."""
    return text.encode("utf-8", "backslashreplace")
