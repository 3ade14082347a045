"""Sinks for the suite of the sinks: lists, files, and the stores of vectors and of points."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from delete_shapes import SHAPED_LIKE_DELETES
from empty_collections import empty_collection

from sage_connectors import ParquetFiles, files_sink
from sage_flink.db import Collection
from sage_flink.db.vectors import pack
from sage_flink.flow.lists import ListSink
from sage_flink.flow.ports import Sink
from sage_flink.tsdb import bucket
from sage_flink.tsdb import memory as series_in_memory


@dataclass(frozen=True)
class SinkCase:
    """A sink, a valid value by number, the number of rows that it holds, and values it refuses.

    A sink that stores any value ``refuses`` none.
    """

    sink: Sink
    value: Callable[[int], Any]
    count: Callable[[], int]
    refuses: tuple[Any, ...] = ()


#: What a sink of mappings with certain fields refuses, such as a database.
NO_ROWS = (None, "text", 7, [], {}, {"vector": "text"}, *SHAPED_LIKE_DELETES)


@contextmanager
def rows_into(store: str, tmp_path: Path) -> Iterator[SinkCase]:
    with empty_collection(store, dim=2) as spec:
        yield rows_case(spec)


def rows_case(spec: Collection) -> SinkCase:
    def value(n: int) -> Any:
        return {"vector": pack([1.0, n]), "text": f"text {n}", "id": "unused", "doc": "r1"}

    bad = {"vector": pack([1.0])}
    return SinkCase(spec, value, lambda: spec.open().count(), (*NO_ROWS, bad))


@contextmanager
def points_into(store: str, tmp_path: Path) -> Iterator[SinkCase]:
    name = f"m{uuid.uuid4().hex}"
    spec = bucket("conformance", store=store)

    def value(n: int) -> Any:
        return {"measurement": name, "tags": {"n": str(n)}, "fields": {"v": float(n)}}

    def count() -> int:
        store = spec.open()
        points = store.count(name)
        store.close()
        return points

    yield SinkCase(spec, value, count, (*NO_ROWS, {"measurement": name, "fields": {}}))
    series_in_memory.forget(spec.name)
    if store != "memory":
        opened = spec.open()
        opened.drop(name)  # type: ignore[attr-defined]
        opened.close()


@contextmanager
def kept_in_list(tmp_path: Path) -> Iterator[SinkCase]:
    sink = ListSink()
    yield SinkCase(sink, lambda n: {"n": n}, lambda: len(sink.rows))


@contextmanager
def parquet_in(tmp_path: Path) -> Iterator[SinkCase]:
    """A record in two batches is in two files: rows are counted by id."""
    sink = files_sink(tmp_path, format="parquet")

    def count() -> int:
        return pandas.read_parquet(tmp_path).id.nunique() if any(tmp_path.iterdir()) else 0

    assert isinstance(sink, ParquetFiles)
    yield SinkCase(sink, lambda n: {"n": n}, count, (float("nan"), {(1, 2): "x"}))
