"""The sources of the in-process target in their order, and their records when they are due."""

import asyncio
import time
from collections.abc import AsyncIterator

from sage_flink.common.records import Record
from sage_flink.flow.graph import Graph, Read
from sage_flink.flow.ports import Paced
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.steps import source_records


def reads(graph: Graph) -> list[Read]:
    """The sources in the order of the graph, but those of the rows of broadcast joins first."""
    first = {node.right for node in graph.nodes if isinstance(node, BroadcastJoin)}
    for node in reversed(graph.nodes):
        if node.name in first:
            first.update(node.inputs)
    sources = (node for node in graph.nodes if isinstance(node, Read))
    return sorted(sources, key=lambda source: source.name not in first)


async def arrivals(node: Read) -> AsyncIterator[Record]:
    """The records of the source, in order; a paced one can be cancelled at each of them."""
    started_s = time.monotonic()
    paced = node.source if isinstance(node.source, Paced) else None  # a slow check: once is enough
    for number, record in enumerate(source_records(node)):
        if paced is not None:
            due_s = started_s + number / paced.per_s if paced.per_s else 0.0
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        yield record
