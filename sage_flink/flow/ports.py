"""What a step may be handed: sources, sinks, functions and calls, each a frozen picklable spec.

A spec travels; a client does not. ``writer()`` and ``records()`` make the client where they run.
Sources and sinks that Flink knows natively say so by :class:`FlinkSource` and :class:`FlinkSink`;
the others are driven by sage's own operators.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from sage_flink.common.records import Record

#: A step's function: one record in, any number of values or records out. A plain value becomes a
#: child record with a derived id; a Record is taken as it is. Raise Rejected to dead-letter.
#: Text, bytes and mappings are values: return a list of them, or yield. A delete is forwarded
#: without calling the function, unless it declares ``supports_deletes = True``.
Function = Callable[[Record], Iterable[Any]]


def supports_deletes(spec: object) -> bool:
    """Whether a function or sink declares ``supports_deletes = True``: deletes are handed to it.

    A function that does not is skipped by deletes; a sink that does not cannot stand where deletes
    arrive, see :mod:`sage_flink.flow.deletes`.
    """
    return getattr(spec, "supports_deletes", False) is True


def emits_deletes(spec: object) -> bool:
    """Whether a source or function declares ``emits_deletes = True``: it may return deletes."""
    return getattr(spec, "emits_deletes", False) is True


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a micro-batch is handed on: by count, by bytes, or by the age of its oldest record."""

    items_max: int = 500
    bytes_max: int = 4_000_000
    linger_s: float = 0.05


class Refusal(NamedTuple):
    """A record that a store refused for good, and why."""

    record: Record
    reason: str


class Writer(Protocol):
    """An open sink. Called by one thread at a time."""

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Store the records; return only after the store has acknowledged them.

        Idempotent by record id: writing a record again changes nothing. Returns those that the
        store refused for good; the others are stored.

        Raises:
            Retryable: nothing is known to be stored; the same call may succeed later.
        """

    def close(self) -> None:
        """Let go of the client. Nothing is pending."""


@runtime_checkable
class Sink(Protocol):
    """A place to write to, as a value.

    A sink whose writer applies records of kind ``delete`` declares ``supports_deletes = True``, and
    may name its collection in a property ``place``: two sinks of one place write the same rows.
    """

    @property
    def batch(self) -> BatchLimits:
        """The micro-batch this sink likes best."""

    def writer(self) -> Writer:
        """Open the sink where this is called."""


@runtime_checkable
class Source(Protocol):
    """A place to read from, as a value; ``emits_deletes = True`` when deletes are among them."""

    def records(self) -> Iterable[Record]:
        """The records now there, in order; bounded. Read in this process.

        Their ids are distinct, each record's ``origin`` is its ``id``, and reading again gives
        equal records of what has not changed: a replay then writes the same rows.

        Raises:
            ConfigError: what it names is not there.
        """


@runtime_checkable
class FlinkSource(Protocol):
    """A source that Flink reads natively, with offsets in its checkpoints."""

    def flink_source(self, jvm: Any) -> Any:
        """The Java ``Source<byte[]>`` of encoded records."""


@runtime_checkable
class FlinkSink(Protocol):
    """A sink that Flink writes natively, with its own delivery guarantee."""

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        """The Java ``Sink<byte[]>`` of encoded records."""


@runtime_checkable
class SharedSink(Protocol):
    """A native sink with a topic, of a kind of which one can write to the topics of several.

    In one transaction: sinks whose ``shared()`` are equal are seen together or not at all.
    """

    @property
    def topic(self) -> str: ...  # noqa: D102

    def shared(self) -> FlinkSink:
        """The sink for all topics; each record comes addressed to its own."""


@runtime_checkable
class Prepared(Protocol):
    """A source or sink that wants something to be there before a job starts: a topic, say."""

    def prepare(self) -> None:
        """Make sure of it; harmless when it is there. Called once, where the job is submitted.

        Raises:
            ConfigError: it cannot be made as asked.
            StoreUnavailable: the server is away.
        """


@runtime_checkable
class CallSpec(Protocol):
    """A question to the model pool and what becomes of the answer, both pure functions.

    ``mode`` is ``post`` (the body is a whole JSON request) or ``embed`` (the body is one text;
    texts of many records are gathered into one request, and the answer is the vector as
    little-endian float32 bytes).
    """

    @property
    def mode(self) -> Literal["post", "embed"]: ...  # noqa: D102

    @property
    def path(self) -> str: ...  # noqa: D102

    @property
    def model(self) -> str: ...  # noqa: D102

    def request(self, record: Record) -> bytes:
        """The body to send; empty when there is nothing to ask, and the record goes on as it is.

        Raises Rejected when the record cannot be asked about.
        """

    def answer(self, record: Record, body: bytes) -> Record:
        """The record with its answer. Raises Rejected when the answer makes no sense."""


class Reply(NamedTuple):
    """What one request was answered; ``retry_after_s`` is 0 where the pool asked for no pause."""

    status: int
    body: bytes
    retry_after_s: float = 0.0


class Pool(Protocol):
    """The model pool over its one wire: OpenAI's HTTP shapes."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The reply to one request; an HTTP error is a reply, not an exception.

        Raises:
            PoolTimeout: no answer in time.
            PoolAway: no connection; nothing was asked.
            PoolError: the connection broke.
        """

    def stream(self, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The body of one request as it arrives.

        Raises:
            PoolError: status >= 400 (``status`` and the body's message kept), or it broke.
        """
