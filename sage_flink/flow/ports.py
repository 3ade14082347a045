"""The protocols of a step's arguments: sources, sinks and functions, as picklable specs.

A spec travels to the workers; a client does not. ``writer()``, ``records()`` and an operator's
``open(context)`` make the client where they run. A source or sink that Flink implements natively
is a :class:`FlinkSource` or :class:`FlinkSink`; the others are driven by sage's own operators. The
protocols of a call are in :mod:`~sage_flink.flow.call_ports`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from sage_flink.common.records import Record
from sage_flink.common.records import Refusal as Refusal
from sage_flink.flow.functions import unwrap

#: A step's function: one record in, any number of values or records out. A plain value becomes a
#: child record with a derived id; a Record is taken as it is. Raise Rejected to dead-letter the
#: record; yield Refusal(part, reason) to dead-letter a part of it: a Record whose id and value are
#: those of the part, so that a replay hands the function this part alone.
#: Text, bytes and mappings are values: return a list of them, or yield. A delete is forwarded
#: without calling the function, unless it declares ``supports_deletes = True``. An object may have
#: ``open(context)`` and ``close()``.
Function = Callable[[Record], Iterable[Any]]


def supports_deletes(spec: object) -> bool:
    """Whether a function or sink declares ``supports_deletes = True``: deletes are handed to it.

    A delete bypasses any other function; a graph with any other sink where deletes arrive is
    refused, see :mod:`sage_flink.flow.deletes`.
    """
    return getattr(unwrap(spec), "supports_deletes", False) is True


def emits_deletes(spec: object) -> bool:
    """Whether a source or function declares ``emits_deletes = True``: it may return deletes.

    From any other function, and from a call, a delete is rejected; from any other source it ends
    the run.
    """
    return getattr(unwrap(spec), "emits_deletes", False) is True


def encodes_deletes(spec: object) -> bool:
    """Whether a function declares ``encodes_deletes = True``: it makes messages of deletes.

    They are upserts to sage, and deletes to the readers of the sink behind it, which has to get
    them in order.
    """
    return getattr(unwrap(spec), "encodes_deletes", False) is True


@dataclass(frozen=True, slots=True)
class OpenContext:
    """Where an operator is opened: its job and step, and which of the parallel subtasks it is."""

    job: str
    step: str
    subtask: int = 0
    parallelism: int = 1


class Openable(Protocol):
    """An operator with resources of its own: either method may be left out.

    Each subtask opens its own copy before the first record and closes it at the end, and on
    failure too. ``open`` may set attributes; what it sets is lost when the job ends or restarts.
    In process ``open`` and ``close`` may run in other threads than the calls: a client that belongs
    to one thread cannot be used (sqlite3 has ``check_same_thread=False`` for it).
    """

    def open(self, context: OpenContext) -> None:
        """Create what cannot travel: a tokenizer, a client, a compiled template."""

    def close(self) -> None:
        """Close it. Also called after an ``open`` that raised in a later step."""


@runtime_checkable
class JobScoped(Protocol):
    """A source or sink that is another one in each job, such as a topic named after it."""

    def for_job(self, name: str) -> "JobScoped":
        """The source or sink of the job called ``name``."""
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits that complete a micro-batch: count, bytes, or the age of its oldest record."""

    items_max: int = 500
    bytes_max: int = 4_000_000
    linger_s: float = 0.05


class Writer(Protocol):
    """An open sink. Called by one thread at a time, not always the same one."""

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Store the records; return only after the store has acknowledged them.

        Idempotent by record id: writing a record again has no effect. Returns those that the
        store refused for good; the others are stored.

        Raises:
            Retryable: the records may not be stored; the same call may succeed later.
        """

    def close(self) -> None:
        """Close the client. No write is pending."""


@runtime_checkable
class CheckpointedWriter(Writer, Protocol):
    """A writer of records that are visible once their checkpoint is complete.

    An epoch is a checkpoint of the job; epochs grow over restarts and jobs, and may be skipped.
    ``restore`` is called first, and ``commit`` may be left out for an epoch: a later one covers it.
    Every method raises Retryable as ``write`` does.
    """

    def restore(self, epoch: int, *, is_fresh: bool, ends_documents: bool) -> None:
        """Take back what was written after ``epoch``, in a fresh job what no commit covers.

        ``ends_documents``: deletes end the documents, which are visible as a whole.
        """

    def end_epoch(self, epoch: int) -> None:
        """End the epoch at its checkpoint: later records belong to the next one."""

    def commit(self, epoch: int, watermark_ms: int | None) -> None:
        """The checkpoint of ``epoch`` is complete; its watermark, where the stream has some."""


def has_snapshots(sink: object) -> bool:
    """Whether a sink declares ``snapshots``: it has a :class:`CheckpointedWriter`, and only one."""
    return getattr(sink, "snapshots", False) is True


@runtime_checkable
class Sink(Protocol):
    """The spec of a store or topic to write to.

    Each subtask opens its own writer, on any worker. ``write`` has to be idempotent across them:
    the store, not the writer, knows which records it has.

    A sink whose writer applies records of kind ``delete`` declares ``supports_deletes = True``, and
    may name its collection in a property ``place``: two sinks of equal places write the same rows.
    A delete removes the rows with its ``document``, the field ``doc`` of their values, except those
    with its ``version``.
    One with ``snapshots = True`` has a :class:`CheckpointedWriter`.
    """

    @property
    def batch(self) -> BatchLimits:
        """The limits of the micro-batches that suit this sink."""

    def writer(self) -> Writer:
        """Open the sink where this is called.

        Raises:
            ConfigError: the sink cannot be opened as the spec asks; the step fails.
            StoreUnavailable: the server is away; the step waits and tries again.
        """


@runtime_checkable
class Source(Protocol):
    """The spec of a store or topic to read from.

    A source with deletes among its records declares ``emits_deletes = True``.
    """

    def records(self) -> Iterable[Record]:
        """The records of this moment, in order; bounded. Read in this process.

        Their ids are distinct, each record's ``origin`` is its ``id``, and reading again gives
        equal records of what has not changed: a replay then writes the same rows.

        Raises:
            ConfigError: the folder, topic or table that it names does not exist.
        """


@runtime_checkable
class Paced(Protocol):
    """A source whose records are due at a steady rate; in process the reader makes the pauses."""

    @property
    def per_s(self) -> float:
        """Records a second; 0 is as fast as they are taken."""


@runtime_checkable
class FlinkSource(Protocol):
    """A source that Flink reads natively, with offsets in its checkpoints.

    One that only a fixed number of subtasks may read declares ``parallelism``. One that gives each
    record Flink's timestamp, by partition, declares ``has_watermarks = True``: event time then
    waits until every partition was heard or is idle.
    """

    def flink_source(self, jvm: Any) -> Any:
        """The Java ``Source<byte[]>`` of encoded records."""


@runtime_checkable
class FlinkSink(Protocol):
    """A sink that Flink writes natively, with its own delivery guarantee."""

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        """The Java ``Sink<byte[]>`` of encoded records."""


@runtime_checkable
class LimitedSink(Protocol):
    """A native sink that cannot write every record, such as one larger than its topic takes."""

    def within_limits(self, jvm: Any, stream: Any, step: str, *, job: str, run: str) -> Any:
        """An operator behind the Java ``stream``: the records that the sink can write.

        In place of each other one it emits a counter delta of ``step``; its side output ``failed``
        has them as dead letters of ``job``. Where ``step`` is that of the dead letters
        it shortens them and refuses none.
        """


@runtime_checkable
class SharedSink(Protocol):
    """A native sink with a topic that can share a transaction with the sinks of other topics.

    Sinks with equal ``topics_sink()`` can be replaced by that one sink: their records then become
    visible in one transaction.
    """

    @property
    def topic(self) -> str: ...  # noqa: D102

    def topics_sink(self) -> FlinkSink:
        """The sink for all topics; each record is addressed to its own."""


class NativeOperator(NamedTuple):
    """A Java operator below ``org.sage.flink`` that does what a function does, and its arguments.

    ``verb`` is how the function is meant to be used.
    """

    verb: Literal["flat_map", "map", "filter"]
    name: str
    arguments: tuple[Any, ...]


@runtime_checkable
class NativeFunction(Protocol):
    """A function that the JVM knows too; its ``__call__`` is that of the same class."""

    @property
    def native(self) -> NativeOperator | None:
        """The operator; None where only Python can do it."""


@runtime_checkable
class Prepared(Protocol):
    """A source, sink or function that needs a resource before a job starts, such as a topic."""

    def prepare(self) -> None:
        """Create the resource if it does not exist. Called once, where the job is submitted.

        Raises:
            ConfigError: it cannot be created as the spec asks.
            StoreUnavailable: the server is away.
        """
