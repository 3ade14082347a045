"""consistency: what readers see while documents are updated and the TaskManager is killed.

Both sides run the same updates with the same kills, on the drills' own stack: a collection with
``snapshots=True`` and one without. A read finds the chunks of three documents; it is torn or misses
a row, see ``recovery.consistency``. Then two collections with the same rows, and no older versions,
are searched in turns: what the filter of the snapshots costs. ``paused`` searches come after a
pause, so each of them looks for the newest snapshot first.
"""

import time
import uuid
from typing import Any

from benchmark_sage.b7_search import DIM, QUERIES, TOP_K, vectors
from benchmark_sage.recovery.cluster import running_cluster
from benchmark_sage.recovery.consistency import ConsistencyRun
from benchmark_sage.results import Headline, Result, result
from benchmark_sage.workload import percentile
from sage_flink.common import Record
from sage_flink.db import VectorStore, collection
from sage_flink.db.snapshot_reads import NEWEST_S
from sage_flink.db.snapshot_writer import SnapshotWriter

TIMES = 500
QUICK_READS, QUICK_TIMES = 4_000, 20
SIDES = {"snapshots": True, "without": False}
Row = dict[str, Any]


def run(*, repeats: int, records: int = 50_000, quick: bool = False) -> Result:
    """Each side ``repeats`` times with ``records`` reads, and the cost of a read."""
    reads = QUICK_READS if quick else records
    sides: dict[str, list[Row]] = {side: [] for side in (*SIDES, "cost")}
    with running_cluster() as cluster:
        for number in range(repeats):
            for side, snapshots in SIDES.items():
                drill = ConsistencyRun(cluster, snapshots, reads, seed=number)
                row = drill.run(QUICK_TIMES if quick else TIMES)
                sides[side].append(row)
                print(f"repeat {number + 1}/{repeats}  {side:<10} {row}", flush=True)
            row = cost(2_000 if quick else 20_000)
            sides["cost"].append(row)
            print(f"repeat {number + 1}/{repeats}  cost       {row}", flush=True)
    return result(
        "consistency", seed=0, repeats=repeats, sides=dict(sides), headline=headline(sides)
    )


def cost(records: int) -> Row:
    """Milliseconds of a search with and without snapshots, over ``records`` rows each."""
    rows, queries = vectors(records, seed=0), vectors(QUERIES, seed=1)
    stores = {side: _fill_store(rows, snapshots) for side, snapshots in SIDES.items()}
    row: Row = {"rows": records}
    try:
        for pause_s, label in ((0.0, ""), (2 * NEWEST_S, "paused_")):
            took: dict[str, list[float]] = {side: [] for side in SIDES}
            for query in queries:
                for side, store in stores.items():
                    time.sleep(pause_s / 2)
                    began_s = time.perf_counter()
                    assert len(store.search(query.tolist(), TOP_K)) == TOP_K
                    took[side].append((time.perf_counter() - began_s) * 1000)
            for side, times_ms in took.items():
                for share in (50, 99):
                    name = f"{label}{side}_ms_p{share}"
                    row[name] = round(percentile(times_ms, share / 100), 2)
    finally:
        for store in stores.values():
            store.drop()  # type: ignore[attr-defined]
            store.close()
    return row


def _fill_store(rows: Any, snapshots: bool) -> VectorStore:
    spec = collection(f"cost_{uuid.uuid4().hex[:10]}", dim=DIM, snapshots=snapshots)
    writer, epoch = spec.writer(), time.time_ns() // 1000
    if isinstance(writer, SnapshotWriter):
        writer.restore(epoch, is_fresh=True, ends_documents=False)
    for at in range(0, len(rows), 500):
        batch = [
            Record(str(number), {"vector": rows[number].tobytes(), "text": f"row {number}"})
            for number in range(at, min(at + 500, len(rows)))
        ]
        assert not writer.write(batch)
    if isinstance(writer, SnapshotWriter):
        writer.end_epoch(epoch + 1)
        writer.commit(epoch + 1, None)
    writer.close()
    store = spec.open()
    assert store.count() == len(rows)
    return store


def headline(sides: dict[str, list[Row]]) -> list[Headline]:
    """Faults with snapshots (0), without (above 0), and the cost of a search."""

    def faults(side: str) -> list[float]:
        return [float(row["torn"] + row["vanished"] + row["as_of_wrong"]) for row in sides[side]]

    ratios = {
        name: [row[f"snapshots_ms_{name}"] / row[f"without_ms_{name}"] for row in sides["cost"]]
        for name in ("p50", "p99")
    }
    return [
        Headline.worst(
            "torn or vanished, snapshots", faults("snapshots"), unit="", floor=0, moonshot=0
        ),
        Headline.of("torn or vanished, without", faults("without"), unit="", floor=1, moonshot=1),
        *(
            Headline.worst(
                f"search {name}, snapshots over without", found, unit="x", floor=1.5, moonshot=1
            )
            for name, found in ratios.items()
        ),
    ]
