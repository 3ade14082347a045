"""Watermarks of the in-process target that wait for calls: behind all of them, and cheap."""

import asyncio
import time
from collections.abc import Mapping

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import Count, Tumbling
from sage_flink.flow.call_ports import Reply
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference import EchoPool


class SlowPool:
    """An EchoPool that takes a moment for each request, the longer the earlier it comes."""

    def __init__(self) -> None:
        self.pool, self.count = EchoPool(), 0

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        self.count += 1
        await asyncio.sleep(0.05 / self.count)
        return await self.pool.post(path, body, headers)


def counts_behind_calls(records: int, calls: int) -> list[int]:
    """The counts of windows of a second, of ten records a second; ``calls`` of them are called."""
    rows = tuple(
        Record(f"t/0/{n}", {"question": f"q{n}", "n": n}, 1_000_000 + 100 * n, b"k")
        for n in range(records)
    )
    called = (
        sage.flow.read("in", ListSource(rows))
        .event_time("time", out_of_order_s=0.1)
        .filter("first", lambda record: record.value["n"] < calls)
        .call("ask", sage.completion(model="m", prompt="question"), capacity=64, timeout_s=5)
    )
    graph = called.window("n", Tumbling(1), {"n": Count()}).write("out", ListSink())
    outcome = asyncio.run(sage.flow.run(graph, pool=SlowPool()))
    assert outcome.failed == []
    return [record.value["n"] for record in outcome.written["out"]]


def test_no_record_is_late_behind_a_call_however_long_it_takes() -> None:
    assert counts_behind_calls(400, calls=200) == [10] * 20


def test_watermarks_behind_a_call_in_flight_take_time_in_proportion_to_their_number() -> None:
    began_s = time.perf_counter()

    assert counts_behind_calls(5_000, calls=5) == [5]

    assert time.perf_counter() - began_s < 10  # 1 s; minutes where each waits for all before it
