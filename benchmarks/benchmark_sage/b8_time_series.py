"""B8: points into InfluxDB: what sage's writer takes of a core, and the client's own batching.

``client`` is influxdb-client as its documentation writes many points: ``WriteApi`` with batches of
5,000 points and gzip; ``client_plain`` is the same without gzip. ``sage`` is the writer of a
bucket, which a job's sink uses: it checks every point, reads a record, and says which ones the
server refused. Every side writes the same points, and writes them again: the second time must not
change their number.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from influxdb_client import InfluxDBClient, Point, WriteOptions

import sage_flink as sage
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import Headline, Result, result
from sage_connectors.influxdb_connection import open_client
from sage_flink.common import Record
from sage_flink.common.connections import InfluxdbConnection
from sage_flink.common.connections_file import connection_to
from sage_flink.common.settings import Settings

BATCH, MEASUREMENT, START_NS = 5_000, "sensors", 1_700_000_000_000_000_000
Row = dict[str, Any]


def run(*, repeats: int, records: int = 100_000) -> Result:
    """Every side ``repeats`` times, interleaved, over ``records`` points."""
    sides: dict[str, list[Row]] = {side: [] for side in SIDES}
    pace = Pace([records / 10_000] * repeats * len(SIDES))
    for number in range(repeats):
        for side in SIDES:
            row = attempt(run_side, side, records)
            sides[side].append(row)
            pace.report(f"repeat {number + 1}/{repeats}  {side:<12}", row)
    return result("B8", seed=0, repeats=repeats, sides=dict(sides), headline=headline(sides))


def run_side(side: str, count: int) -> Row:
    """Points a second of one side, and a second of this process's CPU time."""
    name = f"b8_{uuid.uuid4().hex[:10]}"
    store: Any = sage.tsdb.bucket(name).open()
    try:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        SIDES[side](name, count)
        took_s, used_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        stored = store.count(MEASUREMENT)
        SIDES[side](name, count)
        again = store.count(MEASUREMENT)
    finally:
        store.drop(MEASUREMENT)
        store.close()
    return {
        "points_per_s": round(count / took_s),
        "points_per_cpu_s": round(count / used_s),
        "lost": count - stored,
        "duplicated": again - stored,
    }


def points(count: int) -> Iterator[Row]:
    """Points of 100 sensors, two tags and two fields, a millisecond apart."""
    for number in range(count):
        yield {
            "measurement": MEASUREMENT,
            "tags": {"sensor": f"s{number % 100}", "site": f"site {number % 7}"},
            "fields": {"value": 20 + number % 1_000 / 37, "state": "ok"},
            "timestamp_ns": START_NS + number * 1_000_000,
        }


def _client(name: str, count: int, *, gzip: bool) -> None:
    with _open(gzip) as client, client.write_api(WriteOptions(batch_size=BATCH)) as writes:
        for made in points(count):
            point = Point(made["measurement"])
            for tag, value in made["tags"].items():
                point = point.tag(tag, value)
            for field, value in made["fields"].items():
                point = point.field(field, value)
            writes.write(name, record=point.time(made["timestamp_ns"]))


def _open(gzip: bool) -> InfluxDBClient:
    """The client that sage opens, with gzip or without."""
    server = connection_to("", InfluxdbConnection)
    client = open_client(server, server.org or Settings.load().influxdb_org)
    client.api_client.configuration.enable_gzip = gzip
    return client


def _sage(name: str, count: int) -> None:
    writer = sage.tsdb.bucket(name).writer()
    try:
        for batch in in_batches(count):
            assert not writer.write(batch)
    finally:
        writer.close()


def in_batches(count: int) -> Iterator[list[Record]]:
    """The points as records, in batches."""
    batch: list[Record] = []
    for number, point in enumerate(points(count)):
        batch.append(Record(f"p{number}", point))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


SIDES: dict[str, Callable[[str, int], None]] = {
    "client": lambda name, count: _client(name, count, gzip=True),
    "client_plain": lambda name, count: _client(name, count, gzip=False),
    "sage": _sage,
}


def headline(sides: dict[str, list[Row]]) -> list[Headline]:
    """Sage over the better of the client's two forms, in the same repeat; and repeated points."""
    pairs = [
        (ours, max(theirs, key=lambda row: row["points_per_cpu_s"]))
        for ours, *theirs in zip(sides["sage"], sides["client"], sides["client_plain"], strict=True)
        if not any("error" in row for row in (ours, *theirs))
    ]
    if not pairs:
        return []
    per_core = [ours["points_per_cpu_s"] / theirs["points_per_cpu_s"] for ours, theirs in pairs]
    wall = [ours["points_per_s"] / theirs["points_per_s"] for ours, theirs in pairs]
    twice = [ours["duplicated"] + ours["lost"] for ours, _ in pairs]
    return [
        Headline.of(
            "points a second and core over influxdb-client's batching",
            per_core,
            unit="ratio",
            floor=1.0,
            moonshot=1.5,
        ),
        Headline.of("points a second over the same", wall, unit="ratio", floor=1.0, moonshot=1.5),
        Headline.worst(
            "points lost, or duplicated by a replay", twice, unit="", floor=0, moonshot=0
        ),
    ]
