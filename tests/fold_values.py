"""A stream of values with a key, for folds in this process."""

import asyncio
from typing import Any

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import (
    Stream,
)
from sage_flink.flow.lists import ListSink, ListSource


def event(number: int, value: Any, key: bytes | None = b"k") -> Record:
    return Record(f"t/0/{number}", value, 7, key, {"h": b"x"}, f"t/0/{number}")


def stream(*values: Any) -> Stream:
    given = tuple(v if isinstance(v, Record) else event(n, v) for n, v in enumerate(values))
    return sage.flow.read("in", ListSource(given))


def run(branch: Stream) -> Any:
    return asyncio.run(sage.flow.run(branch.write("out", ListSink())))


def values(branch: Stream) -> list[Any]:
    return [record.value for record in run(branch).written["out"]]


def count(state: int, record: Record) -> tuple[int, list[int]]:
    return state + 1, [state]
