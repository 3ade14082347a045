"""The calls of the Flink target without Java: PyFlink's AsyncDataStream, with its traps guarded.

Correct and slower: each bundle of the Python worker ends by waiting for every call in flight, and
so does each checkpoint; so bundles are large (``platform.cluster``). What PyFlink
2.3's operator does wrong by itself, and what stands here against it:

* An exception of the function can lose its record under EXACTLY_ONCE, and a CancelledError stops
  the job for ever. So nothing leaves ``async_invoke`` but an outcome.
* Its timeout leaves the coroutine running and costs a thread a record, and its retry strategies
  share state between records. So its timeout is 0, and budget and attempts are the Caller's.
* A result that is not a list is taken apart. So it is always a list of one.
* ``open()`` runs before the event loop exists, and the loop is gone when ``close()`` runs. So the
  pool opens with the first record.
* Side outputs raise. So failures travel as outcomes and part ways in the step behind.
* In unordered mode each watermark is a fence. So calls stand upstream of watermarks: sage's
  sources emit none.
"""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
from pyflink.common import Time
from pyflink.datastream import AsyncDataStream, DataStream
from pyflink.datastream.functions import AsyncFunction, RuntimeContext

from sage_flink.common.adapters import adapter
from sage_flink.common.errors import ConfigError, OperatorNeeded
from sage_flink.common.records import Failed, Record, decode, encode_many
from sage_flink.common.settings import Settings
from sage_flink.flow.calls.caller import Caller
from sage_flink.flow.flink.python_steps import BYTES, Item, Step, WriteStep
from sage_flink.flow.graph import Call

T = TypeVar("T")


class Outcome(msgspec.Struct, array_like=True):
    """What became of a call, on its way to the step that parts good from failed: one is set."""

    record: Record | None = None
    failed: Failed | None = None


class Calls(AsyncFunction):  # type: ignore[misc]
    """The calls of one subtask: an encoded record in, a list of one encoded Outcome out."""

    def __init__(self, node: Call, job: str, urls: tuple[str, ...]) -> None:
        self._node, self._job, self._urls = node, job, urls
        self._pool: Any = None
        self._caller: Caller | None = None

    def open(self, runtime_context: RuntimeContext) -> None:
        """Nothing: there is no event loop yet."""

    def close(self) -> None:
        """Abort what is in flight; the loop is closed, so the sockets go with their last owner."""
        if self._pool is not None:
            asyncio.run(self._pool.aclose())
        self._pool = self._caller = None
        gc.collect()

    async def async_invoke(self, value: bytes) -> list[bytes]:
        """What became of the record in ``value``; never raises, a cancellation included."""
        record = Record(id="", value=value)
        try:
            record = decode(value)
            out = await self._opened().answer(record)
        except BaseException as error:
            reason = f"the call broke: {type(error).__name__}: {error}"[:500]
            out = Failed.of(record, self._node.name, reason)
        outcome = Outcome(failed=out) if isinstance(out, Failed) else Outcome(record=out)
        return [msgspec.msgpack.encode(outcome)]

    def _opened(self) -> Caller:
        if self._caller is None:
            shipped = {"http": "sage_connectors.http:HttpPool"}
            self._pool = adapter("sage.pool", "http", shipped)(",".join(self._urls), _key())
            self._caller = Caller(self._node, self._pool.post, job=self._job)
        return self._caller


class OutcomeStep(Step):
    """Outcome -> the record with its answer, or the failure."""

    takes_records = False

    def __init__(self, node: Call) -> None:
        super().__init__(f"{node.name}.answer", (node.name, "answered", "emitted"))

    def outcomes(self, item: bytes) -> Iterator[Item | Failed]:
        """The one that is set."""
        outcome = msgspec.msgpack.decode(item, type=Outcome)
        for out in (outcome.record, outcome.failed):
            if out is not None:
                yield out


class AloneStep(Step):
    """Record -> a batch of this one: where the native micro-batch is missing."""

    def __init__(self, name: str) -> None:
        super().__init__(name, (name, "read", "emitted"))

    def outcomes(self, item: Record) -> Iterator[Item | Failed]:
        """The batch."""
        yield encode_many([item])


class LetterStep(WriteStep):
    """Dead letters into a Python sink. There is nowhere left for one that is refused."""

    def outcomes(self, item: bytes) -> Iterator[Item | Failed]:
        """Nothing.

        Raises:
            OperatorNeeded: the sink refused a letter; the job starts again from its checkpoint.
        """
        for refused in super().outcomes(item):
            raise OperatorNeeded(f"the sink of the dead letters refused one: {refused!r:.300}")
        yield from ()


def called(stream: DataStream, node: Call, *, job: str, urls: tuple[str, ...]) -> DataStream:
    """``stream`` through the calls of ``node``, as Outcomes; in a task of its own."""
    wait = AsyncDataStream.ordered_wait if node.ordered else AsyncDataStream.unordered_wait
    calls = Calls(node, job, urls)
    out = wait(stream, calls, Time.milliseconds(0), node.capacity, BYTES)
    return out.name(node.name).uid(node.name).disable_chaining()


def of_jar(step: str, jar: bool, make: Callable[[], T]) -> T:
    """What ``make`` makes of Java classes, for ``step``; ``jar``: the native one is there.

    Raises:
        ConfigError: it needs the native jar, and that is missing.
    """
    try:
        return make()
    except TypeError as error:  # py4j takes a class that no jar brings for a package
        if jar:
            raise
        raise ConfigError(
            f"step {step!r}: needs the native operators, which are missing (Kafka is among them); "
            "run `bash infra/setup.sh`, or take another source or sink"
        ) from error


def _key() -> str:
    """The worker's own key for the gateway; none where there is none, as the native call does."""
    try:
        return Settings.load().secret("gateway")
    except ConfigError:
        return ""
