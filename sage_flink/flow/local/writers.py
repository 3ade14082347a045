"""The open sinks of a run in this process, and the one commit at its end."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack

from sage_flink.common.records import Record
from sage_flink.flow.deletes import receivers
from sage_flink.flow.graph import Graph, Write
from sage_flink.flow.ports import CheckpointedWriter, Refusal, Sink, Writer
from sage_flink.flow.stateful.watermarks import END_MS
from sage_flink.flow.writes import write_all


class Writers:
    """The writers of a graph's sinks, opened by their first records; ``resources`` closes them.

    A sink with snapshots has one epoch, the whole run: a run that fails leaves no row that a
    reader sees.
    """

    def __init__(self, graph: Graph, resources: AsyncExitStack) -> None:
        self._resources, self._with_deletes = resources, receivers(graph)
        self._writers: dict[str, Writer] = {}
        self._epochs: dict[str, int] = {}
        self._watermarks: dict[str, int] = {}
        self._locks = defaultdict[str, asyncio.Lock](asyncio.Lock)

    async def write(self, node: Write, records: Sequence[Record]) -> list[Refusal]:
        """Write the records; the refused ones come back."""
        async with self._locks[node.name]:  # a writer is called by one thread at a time
            writer = self._writers.get(node.name) or await self._open(node)
            return await asyncio.to_thread(write_all, writer, records)

    def advance(self, node: Write, watermark_ms: int) -> None:
        """The watermark behind the records so far; the end counts where there was one before."""
        if watermark_ms != END_MS or node.name in self._watermarks:
            self._watermarks[node.name] = watermark_ms

    async def commit(self) -> None:
        """Let readers see what was written, once all of it is."""
        for name, epoch in self._epochs.items():
            writer = self._writers[name]
            assert isinstance(writer, CheckpointedWriter)
            await asyncio.to_thread(writer.end_epoch, epoch)
            await asyncio.to_thread(writer.commit, epoch, self._watermarks.get(name))

    async def _open(self, node: Write) -> Writer:
        assert isinstance(node.sink, Sink)
        writer = await asyncio.to_thread(node.sink.writer)
        self._resources.push_async_callback(asyncio.to_thread, writer.close)
        if isinstance(writer, CheckpointedWriter):
            await asyncio.to_thread(self._restore, writer, node.name)
        self._writers[node.name] = writer
        return writer

    def _restore(self, writer: CheckpointedWriter, name: str) -> None:
        epoch = time.time_ns() // 1000
        writer.restore(epoch, is_fresh=True, ends_documents=name in self._with_deletes)
        self._epochs[name] = epoch + 1
