"""Streamed calls of the in-process target: pieces of an answer while the engine generates it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, runtime_checkable

from sage_flink.common.errors import PoolError, Rejected
from sage_flink.common.records import Record
from sage_flink.flow.call_ports import Pool, Reply
from sage_flink.flow.graph import Call

#: Called with (step, text) for each piece of a streamed answer.
OnDelta = Callable[[str, str], Awaitable[None]]


@runtime_checkable
class Streamable(Protocol):
    """A call spec with answers that can be streamed."""

    def request_streamed(self, record: Record) -> bytes:
        """The body of a request for a stream."""

    def pieces(self) -> "StreamCollector":
        """A collector for one answer."""


class StreamCollector(Protocol):
    """Collects a streamed answer."""

    def feed(self, chunk: bytes) -> str:
        """The text that ``chunk`` adds; may be empty."""

    def body(self) -> bytes:
        """The whole answer, as the unstreamed request would return it."""


class StreamedPost:
    """A ``Pool.post`` over a stream: pieces go to ``on_delta``, the whole answer is returned."""

    def __init__(self, node: Call, spec: Streamable, pool: Pool, on_delta: OnDelta) -> None:
        self._node, self._spec, self._pool, self._on_delta = node, spec, pool, on_delta

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The reply of the whole stream.

        Raises:
            Rejected: the stream broke after its first piece; a retry would repeat that text.
            PoolError: it broke before that.
        """
        collector, started = self._spec.pieces(), False
        try:
            async for chunk in self._pool.stream(path, body, headers):
                if text := collector.feed(chunk):
                    started = True
                    await self._on_delta(self._node.name, text)
        except PoolError as error:
            if started:
                raise Rejected(f"the answer broke off: {error}") from error
            raise
        return Reply(200, collector.body())
