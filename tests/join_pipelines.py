"""Joins of two sides by their key: one graph for both targets, and its run in this process."""

import asyncio
from pathlib import Path
from typing import Any

from minicluster import FileSink, Slowly
from window_truth import OUT_OF_ORDER_S

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import Graph, Stream
from sage_flink.flow.lists import ListSource

Records = tuple[Record, ...]
Parts = tuple[list[Record], list[Record], list[Any]]
HOWS = ("inner", "left", "full")
NOT_SLOWLY = Slowly(0.0)


def join_of(left: Records, right: Records, within_s, how, sinks, slowly: Any = NOT_SLOWLY) -> Graph:
    def keyed(name: str, records: Records) -> Stream:
        return (
            sage.flow.read(name, ListSource(records))
            .map(f"{name}-slowly", slowly)
            .event_time(f"{name}-time", out_of_order_s=OUT_OF_ORDER_S)
            .key_by(f"{name}-key", "deep.u")
        )

    out, late, failed = sinks
    joined = keyed("left", left).join("join", keyed("right", right), within_s=within_s, how=how)
    return sage.flow.pipeline(
        joined.write("out", out), joined.late("late").write("late-out", late)
    ).dead_letters_to(failed)


def sinks_in(folder: Path) -> list[FileSink]:
    folder.mkdir(exist_ok=True)
    return [FileSink(str(folder / name)) for name in ("out", "late", "failed")]


def in_process(left: Records, right: Records, within_s, how: str, folder: Path) -> Parts:
    graph = join_of(left, right, within_s, how, sinks_in(folder))
    outcome = asyncio.run(sage.flow.run(graph))
    return outcome.written["out"], outcome.written["late-out"], outcome.failed


def hot(records: Records) -> Records:
    """The records, all but each hundredth with one key."""
    return tuple(
        record if n % 100 == 0 else record.replace(value={**record.value, "deep": {"u": "anna"}})
        for n, record in enumerate(records)
    )
