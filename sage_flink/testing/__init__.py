"""Test doubles for pipeline authors: a source, a sink and a model pool in memory.

>>> import asyncio
>>> from sage_flink import Record, flow
>>> sink = ListSink()
>>> source = ListSource((Record(id="1", value="one"), Record(id="2", value="two")))
>>> lines = flow.read("lines", source)
>>> graph = lines.flat_map("shout", lambda record: [record.value.upper()]).write("out", sink)
>>> outcome = asyncio.run(flow.run(graph))
>>> [record.value for record in outcome.written["out"]]
['ONE', 'TWO']
"""

from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference.memory import EchoPool

__all__ = ["EchoPool", "ListSink", "ListSource"]
