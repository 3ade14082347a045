"""The clock as event time on both targets: each record is in one window, that of its time."""

import asyncio
import time
from pathlib import Path

import pytest
from minicluster import QUIET, FileSink, Slowly
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import (
    Collect,
    FlinkOptions,
    Graph,
    Sink,
    Tumbling,
    check,
    explain,
    from_yaml,
    lists,
    to_yaml,
)
from sage_flink.flow.lists import ListSink, ListSource

pytestmark = QUIET

#: Their own times are of long ago, and go back.
RECORDS = tuple(Record(f"t/0/{n}", n, 1_000_000 - n, b"all", origin=f"t/0/{n}") for n in range(60))


def windows_of_the_clock(sink: Sink) -> Graph:
    clock = (
        sage.flow.read("in", ListSource(RECORDS))
        .map("slowly", Slowly(0.01))
        .processing_time("clock")
    )
    return clock.window("w", Tumbling(0.1), {"numbers": Collect()}).write("out", sink)


def check_windows(results: list[Record], from_ms: int) -> None:
    numbers = [number for record in results for number in record.value["numbers"]]
    assert numbers == list(range(len(RECORDS)))
    starts = [record.value["start_ms"] for record in results]
    assert len(starts) > 1
    assert starts == sorted(set(starts))
    assert from_ms - 100 < starts[0]
    assert starts[-1] <= now_ms()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_windows_of_the_clock_in_process_hold_each_record_once() -> None:
    from_ms = now_ms()

    outcome = asyncio.run(sage.flow.run(windows_of_the_clock(ListSink())))

    check_windows(outcome.written["out"], from_ms)
    assert outcome.failed == []


@pytest.mark.flink
@pytest.mark.timeout(150)
def test_windows_of_the_clock_on_flink_hold_each_record_once(
    tmp_path: Path, minicluster: None
) -> None:
    sink, failed = FileSink(str(tmp_path / "out")), FileSink(str(tmp_path / "failed"))
    graph = windows_of_the_clock(sink).dead_letters_to(failed)
    options = FlinkOptions(target="local", bundle_items=5)
    from_ms = now_ms()

    sage.flow.submit(graph, name="clock", options=options)
    last = len(RECORDS) - 1
    wait_until(lambda: any(last in r.value["numbers"] for r in sink.read_records()), 100, "all")

    check_windows(sink.read_records(), from_ms)
    assert failed.count() == 0


def test_yaml_and_explain_have_the_clock() -> None:
    words = {"list_source": lists.ListSource, "list_sink": lists.ListSink}
    read = sage.flow.read("in", ListSource(())).processing_time("clock")
    graph = check(read.window("w", Tumbling(60)).write("out", ListSink()), "local")

    text = to_yaml(graph, words)

    assert "processing_time: clock" in text
    assert from_yaml(text, words) == graph
    assert "processing_time  <- in; the clock" in explain(graph)
