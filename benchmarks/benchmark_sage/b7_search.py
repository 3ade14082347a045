"""B7: searches of a collection, compared with pymilvus by hand on the same collection.

``pymilvus`` is the limit: the same request with the client's own call, one client for all threads.
``sage`` is ``sage.db``'s store, which checks the vector and types the rows; ``filtered`` and
``pymilvus_filtered`` the same with a filter that a fifth of the rows match. Rows are unit vectors
around 200 centres, queries are such vectors too, and recall is over an exact search. Each side runs
at every concurrency, closed loop, in threads.
"""

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

import sage_flink as sage
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import Headline, Result, result
from benchmark_sage.workload import percentile
from sage_connectors.milvus_connection import open_client
from sage_connectors.milvus_schema import METRIC
from sage_flink.common import Record

DIM, CENTRES, TOP_K, QUERIES, GROUPS = 384, 200, 10, 600, 5
CONCURRENCIES = (1, 8, 32)
PARAMS = {"metric_type": METRIC, "params": {"ef": 64}}
WHERE = "group == 3"
Search = Callable[[Any], list[str]]
Vectors = Any
Row = dict[str, Any]


def run(*, repeats: int, records: int = 20_000) -> Result:
    """Every side ``repeats`` times, interleaved, over a collection of ``records`` rows."""
    rows, queries = vectors(records, seed=0), vectors(QUERIES, seed=1)
    sides: dict[str, dict[str, list[Row]]] = {side: {} for side in SIDES}
    pace = Pace([8.0] * repeats * len(SIDES) * len(CONCURRENCIES))
    with _collection(rows) as collection:
        for number, threads, side in itertools.product(range(repeats), CONCURRENCIES, SIDES):
            row = attempt(run_side, side, collection, rows, queries, threads)
            sides[side].setdefault(f"c={threads}", []).append(row)
            pace.report(f"repeat {number + 1}/{repeats}  c={threads:<3} {side:<18}", row)
    return result("B7", seed=0, repeats=repeats, sides=dict(sides), headline=headline(sides))


def vectors(count: int, seed: int) -> Vectors:
    """Unit vectors around the centres, float32; shape ``[count, DIM]``."""
    centres = np.random.default_rng(7).normal(size=(CENTRES, DIM))
    random = np.random.default_rng(seed)
    spread = centres[random.integers(CENTRES, size=count)] + random.normal(size=(count, DIM)) / 2
    return (spread / np.linalg.norm(spread, axis=1, keepdims=True)).astype(np.float32)


@contextmanager
def _collection(rows: Vectors) -> Iterator[Any]:
    collection = sage.db.collection(f"b7_{uuid.uuid4().hex[:10]}", dim=DIM)
    writer = collection.writer()
    store: Any = collection.open()
    try:
        for at in range(0, len(rows), 1_000):
            numbers = range(at, min(at + 1_000, len(rows)))
            assert not writer.write([_record(rows, number) for number in numbers])
        assert store.count() == len(rows)
        yield collection
    finally:
        writer.close()
        store.drop()


def _record(rows: Vectors, number: int) -> Record:
    value = {"vector": rows[number].tobytes(), "text": f"row {number}", "group": number % GROUPS}
    return Record(str(number), value)


def run_side(side: str, collection: Any, rows: Vectors, queries: Vectors, threads: int) -> Row:
    """Latency, searches a second and recall of one side with this many threads."""
    open_search, group = SIDES[side]
    with open_search(collection) as search, ThreadPoolExecutor(threads) as pool:
        list(pool.map(search, queries[: 2 * threads]))
        began_s = time.perf_counter()
        answers = list(pool.map(lambda query: _time_search(search, query), queries))
        took_s = time.perf_counter() - began_s
    times_ms = [took * 1000 for _, took in answers]
    return {
        "searches_per_s": round(len(queries) / took_s, 1),
        "ms_p50": round(percentile(times_ms, 0.5), 2),
        "ms_p99": round(percentile(times_ms, 0.99), 2),
        "recall": round(_recall([ids for ids, _ in answers], rows, queries, group), 4),
    }


def _time_search(search: Search, query: Any) -> tuple[list[str], float]:
    began_s = time.perf_counter()
    found = search(query)
    return found, time.perf_counter() - began_s


def _recall(found: list[list[str]], rows: Vectors, queries: Vectors, group: int | None) -> float:
    """The share of the exact nearest rows, of this group if any, that were found."""
    numbers = np.arange(len(rows)) if group is None else np.arange(group, len(rows), GROUPS)
    nearest = numbers[np.argsort(-(queries @ rows[numbers].T), axis=1)[:, :TOP_K]]
    hits = sum(len({*map(int, ids)} & {*exact}) for ids, exact in zip(found, nearest, strict=True))
    return hits / int(nearest.size)


@contextmanager
def _pymilvus(collection: Any, expression: str = "") -> Iterator[Search]:
    client = open_client(collection.server)
    try:
        yield lambda query: [
            hit["id"]
            for hit in client.search(
                collection.name,
                data=[query.tolist()],
                anns_field="vector",
                limit=TOP_K,
                filter=expression,
                search_params=PARAMS,
                output_fields=["text", "group"],  # "*" would add the vectors, and halve the rate
                consistency_level="Bounded",
            )[0]
        ]
    finally:
        client.close()


@contextmanager
def _sage(collection: Any, where: str = "") -> Iterator[Search]:
    store = collection.open()
    condition = sage.db.parse_filter(where) if where else None
    try:
        yield lambda query: [hit.id for hit in store.search(query.tolist(), TOP_K, where=condition)]
    finally:
        store.close()


#: Side -> how it is opened, and the group of the rows that it searches.
SIDES: dict[str, tuple[Callable[[Any], Any], int | None]] = {
    "pymilvus": (_pymilvus, None),
    "sage": (_sage, None),
    "pymilvus_filtered": (lambda collection: _pymilvus(collection, WHERE), 3),
    "filtered": (lambda collection: _sage(collection, WHERE), 3),
}


def headline(sides: dict[str, dict[str, list[Row]]]) -> list[Headline]:
    """What sage adds at c=1, and its share of pymilvus' searches a second at each concurrency."""
    found = []
    for ours, limit, words in (
        ("sage", "pymilvus", ""),
        ("filtered", "pymilvus_filtered", ", filtered"),
    ):
        for rate, rows in sides[ours].items():
            pairs = [
                (row, other)
                for row, other in zip(rows, sides[limit][rate], strict=True)
                if "error" not in row and "error" not in other
            ]
            if pairs:
                found += _headlines(pairs, f", {rate}{words}", rate == "c=1")
    return found


def _headlines(pairs: list[tuple[Row, Row]], where: str, alone: bool) -> list[Headline]:
    rates = [ours["searches_per_s"] / limit["searches_per_s"] for ours, limit in pairs]
    tails = [ours["ms_p99"] / limit["ms_p99"] for ours, limit in pairs]
    recalls = [ours["recall"] for ours, _ in pairs]
    made = [
        Headline.of(
            f"searches a second over pymilvus{where}", rates, unit="ratio", floor=0.9, moonshot=0.97
        ),
        Headline.of(f"recall@10{where}", recalls, unit="ratio", floor=0.95, moonshot=0.99),
        Headline.of(
            f"p99 over pymilvus{where}",
            tails,
            unit="ratio",
            floor=1.15,
            moonshot=1.05,
            better="lower",
        ),
    ]
    if alone:
        added = [ours["ms_p50"] - limit["ms_p50"] for ours, limit in pairs]
        what = f"added p50{where}"
        made.append(Headline.of(what, added, unit="ms", floor=3.0, moonshot=1.0, better="lower"))
    return made
