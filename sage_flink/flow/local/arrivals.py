"""The records of a source of the in-process target, each when it is due."""

import asyncio
import time
from collections.abc import AsyncIterator

from sage_flink.common.records import Record
from sage_flink.flow.graph import Read
from sage_flink.flow.ports import Paced
from sage_flink.flow.steps import source_records


async def arrivals(node: Read) -> AsyncIterator[Record]:
    """The records of the source, in order; a paced one can be cancelled at each of them."""
    source, started_s = node.source, time.monotonic()
    for number, record in enumerate(source_records(node)):
        if isinstance(source, Paced):
            due_s = started_s + number / source.per_s if source.per_s else 0.0
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        yield record
