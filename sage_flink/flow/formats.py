"""Formats: a source's messages into records, and a sink's records into messages.

A source or sink with a ``format`` is short for two steps, which :func:`with_formats` writes out:

* ``Read("orders", kafka("orders", format=Json()))`` becomes the source ``orders.messages`` of raw
  messages and the step ``orders`` that decodes them. So a message that cannot be decoded is a dead
  letter of ``orders`` with its bytes as the value, and a replay decodes it again.
* ``Write("out", kafka("out", format=Json()))`` becomes the step ``out.encode`` and the sink
  ``out``.

Both are steps like any other, so every target runs them alike. A source or sink that replaces one
with a format (``sage.flow.run(graph, sources=...)``) takes the place of its topic: it has raw
messages too.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import tenacity

from sage_flink.common.errors import PipelineError, Rejected, Retryable
from sage_flink.common.records import Record
from sage_flink.flow.graph import FlatMap, Graph, Node, Read, Write
from sage_flink.flow.ports import OpenContext

T = TypeVar("T")
LOG = logging.getLogger("sage.flow")
#: The longest pause before the next attempt at a schema registry that is away.
WAIT_MAX_S = 5.0
LOG_EVERY_S = 10.0

#: A message with bytes or None as its value -> its records.
Decoder = Callable[[Record], Iterable[Record]]
#: An upsert -> the bytes of its message.
Encoder = Callable[[Record], bytes]


@runtime_checkable
class Decodable(Protocol):
    """The spec of a format that can be read. ``emits_deletes``: its records may be deletes."""

    @property
    def emits_deletes(self) -> bool: ...  # noqa: D102

    def decoder(self) -> Decoder:
        """The function from a message to its records, made on the worker.

        It is pure: a message gives equal records at every replay. It raises Rejected for a message
        that cannot be decoded, and Retryable while a server that it needs is away.

        Raises:
            ConfigError: the format cannot be read as the spec asks.
            Retryable: a server that it needs first is away.
        """


@runtime_checkable
class NativeFormat(Protocol):
    """A format that the JVM knows too: its name there, empty where only Python can do it."""

    @property
    def native_decoder(self) -> str: ...  # noqa: D102

    @property
    def native_encoder(self) -> str: ...  # noqa: D102


@runtime_checkable
class Encodable(Protocol):
    """The spec of a format that can be written.

    One that has no message for a delete declares ``encodes_deletes = False``.
    """

    def encoder(self, topic: str) -> Encoder:
        """The function from an upsert to the bytes of its message, made on the worker.

        It raises Rejected for a record that has no form in this format, and Retryable while a
        server that it needs is away.

        Raises:
            ConfigError: the format cannot be written as the spec asks.
            StoreUnavailable: a server that it needs is away.
        """


@runtime_checkable
class Formatted(Protocol):
    """A source or sink with a format; ``messages`` is the same one of raw messages."""

    @property
    def format(self) -> Any: ...  # noqa: D102

    @property
    def messages(self) -> Any: ...  # noqa: D102


@dataclass
class Decode:
    """The function of the step that decodes the messages of a source."""

    format: Decodable
    _decoder: Decoder | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def emits_deletes(self) -> bool:
        """Whether a message of this format can be a delete."""
        return self.format.emits_deletes

    def prepare(self) -> None:
        """Make the decoder once where the job is submitted, so that a wrong setting is found there.

        A server that is away does not keep the job from starting: the step waits for it.

        Raises:
            ConfigError: the format cannot be read as the spec asks.
        """
        with suppress(Retryable):
            self.format.decoder()

    def open(self, context: OpenContext) -> None:
        """Make the decoder."""
        self._decoder = wait_while_away(self.format.decoder, context.step)
        self._step = context.step

    def __call__(self, record: Record) -> Iterable[Record]:
        """The records of the message. Waits while a server that it needs is away."""
        decoder = self._decoder
        assert decoder is not None
        return wait_while_away(lambda: tuple(decoder(record)), self._step)


@dataclass
class Encode:
    """The function of the step that encodes records for the sink of ``topic``.

    A message's key is the record's key, else its id. A delete of a document is a tombstone: a
    message without a value.
    """

    format: Encodable
    topic: str
    _encoder: Encoder | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def encodes_deletes(self) -> bool:
        """Whether the format has a message for a delete; most have a tombstone."""
        return getattr(self.format, "encodes_deletes", True) is True

    @property
    def supports_deletes(self) -> bool:
        """Whether deletes are handed to this function."""
        return self.encodes_deletes

    def prepare(self) -> None:
        """Make the encoder once where the job is submitted, so that a schema is registered there.

        Raises:
            ConfigError: the schema registry refuses the schema.
            StoreUnavailable: the schema registry is away.
        """
        self.format.encoder(self.topic)

    def open(self, context: OpenContext) -> None:
        """Make the encoder."""
        self._encoder = wait_while_away(lambda: self.format.encoder(self.topic), context.step)
        self._step = context.step

    def __call__(self, record: Record) -> Iterable[Record]:
        """The message."""
        encoder = self._encoder
        assert encoder is not None
        key = record.id.encode() if record.key is None else record.key
        if record.kind == "upsert":
            value = wait_while_away(lambda: encoder(record), self._step)
            return (record.replace(value=value, key=key),)
        if record.version:
            raise Rejected(
                f"a delete of all rows of {record.document!r:.200} but those of one version has no "
                "message; put DropDeletes() before the sink, or write documents instead of chunks"
            )
        upsert = Record(record.id, None, record.timestamp_ms, key, record.headers, record.origin)
        return (upsert,)


def wait_while_away(work: Callable[[], T], step: str) -> T:
    """What ``work`` returns, called again without a limit while it raises Retryable.

    The step reads no other record until then, so backpressure builds up to the source. The cause is
    logged at most every ``LOG_EVERY_S`` seconds.
    """
    try:
        return work()
    except Retryable:
        logged_s = float("-inf")

    def log(attempt: tenacity.RetryCallState) -> None:
        nonlocal logged_s
        assert attempt.outcome is not None
        if time.monotonic() - logged_s >= LOG_EVERY_S:
            logged_s = time.monotonic()
            LOG.warning("step %r waits: %s", step, attempt.outcome.exception())

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Retryable),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=WAIT_MAX_S),
        before_sleep=log,
    )(work)


def with_formats(
    graph: Graph, sources: Mapping[str, Any] | None = None, sinks: Mapping[str, Any] | None = None
) -> Graph:
    """The graph with a step of its own for each format, as the targets run it.

    ``sources`` and ``sinks`` replace those of the steps of these names; the format stays.

    Raises:
        PipelineError: a format can be read only, or the dead letters have one.
    """
    if format_of(graph.dead_letters) is not None:
        raise PipelineError("pipeline: dead letters have a form of their own; leave out the format")
    nodes = tuple(made for node in graph.nodes for made in _nodes(node, sources or {}, sinks or {}))
    return graph if nodes == graph.nodes else Graph(nodes, graph.dead_letters)


def format_of(end: Any) -> Any:
    """The format of a source or sink; None without one."""
    return end.format if isinstance(end, Formatted) else None


def _nodes(node: Node, sources: Mapping[str, Any], sinks: Mapping[str, Any]) -> Iterator[Node]:
    match node:
        case Read(name, source):
            own = sources.get(name, source)
            read = format_of(own) or format_of(source)
            messages = own.messages if format_of(own) is not None else own
            if read is None:
                yield node if messages is source else Read(name, messages)
                return
            _require(name, "format", read, Decodable, "a format such as Json()")
            yield Read(f"{name}.messages", messages)
            yield FlatMap(name, f"{name}.messages", Decode(read))
        case Write(name, before, sink):
            end: Any = sink
            written = format_of(end)
            messages = sinks.get(name, end.messages if written is not None else end)
            if written is None:
                yield node if messages is sink else Write(name, before, messages)
                return
            _require(name, "format", written, Encodable, "one that can be written, such as Json()")
            topic = str(getattr(sink, "topic", ""))
            yield FlatMap(f"{name}.encode", before, Encode(written, topic))
            yield Write(name, f"{name}.encode", messages)
        case _:
            yield node


def _require(step: str, field: str, got: Any, protocol: Any, required: str) -> None:
    if isinstance(got, type) or not isinstance(got, protocol):
        raise PipelineError(f"step {step!r}: {field} must be {required}, got {got!r:.200}")
