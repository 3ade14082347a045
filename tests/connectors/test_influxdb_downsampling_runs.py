"""Tasks that downsample a bucket, on a server that runs them; its retention."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sage_connectors.influxdb import InfluxStore
from sage_connectors.influxdb_downsampling import Downsampling
from sage_flink.tsdb import Aggregation, Point, bucket

pytestmark = pytest.mark.service

SECOND = 10**9
MINUTE = 60 * SECOND
FUNCTIONS = ("count", "sum", "mean", "min", "max", "spread", "first", "last", "stddev", "p90")


@pytest.fixture
def source() -> Iterator[InfluxStore]:
    store = bucket("conformance").open()
    assert isinstance(store, InfluxStore)
    yield store
    store.close()


@pytest.fixture
def target() -> Iterator[str]:
    """The name of a bucket that is deleted after the test."""
    name = f"downsampled_{uuid.uuid4().hex}"
    yield name
    store = bucket(name).open()
    assert isinstance(store, InfluxStore)
    buckets = store.client.buckets_api()
    buckets.delete_bucket(buckets.find_bucket_by_name(name))
    store.close()


def append_points(source: InfluxStore, measurement: str, start_ns: int) -> None:
    """Points of hosts and disks, of which some lack a tag, over ten minutes."""
    made = []
    for n in range(240):
        tags = {"host": "ab"[n % 2], "disk": f"{n % 3}"}
        if n % 7 == 0:
            del tags["host"]
        if n % 11 == 0:
            del tags["disk"]
        fields = {"ms": n * 0.5, "n": n}
        made.append(Point(measurement, tags, fields, start_ns + n // 2 * 5 * SECOND))  # type: ignore[arg-type]
    assert not source.append(made)


def rows_in(target: str, measurement: str, field: str) -> dict[Any, dict[str, Any]]:
    store = bucket(target).open()
    found = store.query(measurement)
    store.close()
    prefix = f"{field}_"
    return {
        (tuple(sorted(point.tags.items())), point.timestamp_ns): {
            name.removeprefix(prefix): value for name, value in point.fields.items()
        }
        for point in found
    }


@pytest.mark.parametrize("by", [(), ("host",), ("host", "disk")])
@pytest.mark.parametrize("field", ["ms", "n"])
def test_a_task_writes_what_a_query_finds(
    source: InfluxStore, target: str, field: str, by: tuple[str, ...]
) -> None:
    measurement = f"m{uuid.uuid4().hex}"
    start_ns = 1_700_000_040 * SECOND
    append_points(source, measurement, start_ns)
    wanted = Aggregation(FUNCTIONS, MINUTE, by=by)
    one = Downsampling(measurement, measurement, field, target, wanted)

    for _ in range(2):  # the second time it changes nothing
        source.downsampling.backfill(one, start_ns, start_ns + 20 * MINUTE)

    found = source.aggregate(measurement, field, wanted, start_ns=start_ns)
    written = rows_in(target, measurement, field)
    source.drop(measurement)
    assert len(found) >= 10
    assert written == {
        (tuple(sorted(row.tags.items())), row.start_ns): {
            name: pytest.approx(value, rel=1e-9)
            for name, value in row.values.items()
            if value is not None
        }
        for row in found
    }


def test_a_range_that_holds_part_of_a_window_leaves_it_out(
    source: InfluxStore, target: str
) -> None:
    measurement = f"m{uuid.uuid4().hex}"
    start_ns = 1_700_000_040 * SECOND
    append_points(source, measurement, start_ns)
    one = Downsampling(measurement, measurement, "ms", target, Aggregation(("count",), MINUTE))

    source.downsampling.backfill(one, start_ns + 1, start_ns + 3 * MINUTE - 1)
    source.downsampling.backfill(one, start_ns + 1, start_ns + 2)

    written = rows_in(target, measurement, "ms")
    source.drop(measurement)
    assert written == {((), start_ns + MINUTE): {"count": 24}}


@pytest.mark.timeout(120)
def test_the_server_runs_the_task(source: InfluxStore, target: str) -> None:
    measurement = f"m{uuid.uuid4().hex}"
    every_ns = 5 * SECOND
    wanted = Aggregation(("count", "max"), every_ns, by=("host",))
    one = Downsampling(measurement, measurement, "n", target, wanted, late_ns=10 * every_ns)
    now_ns = time.time_ns()
    at_ns = [now_ns - (n + 1) * SECOND for n in range(5)]
    source.append([Point(measurement, {"host": "a"}, {"n": n}, t) for n, t in enumerate(at_ns)])
    try:
        assert source.downsampling.put(one)
        assert not source.downsampling.put(one)
        written: dict[Any, dict[str, Any]] = {}
        until = time.monotonic() + 60
        while sum(row["count"] for row in written.values()) < 5 and time.monotonic() < until:
            time.sleep(1)
            written = rows_in(target, measurement, "n")
        time.sleep(1)  # the counts may be there before the largest values are
        written = rows_in(target, measurement, "n")
        (state,) = [s for s in source.downsampling.states() if s.name == measurement]
    finally:
        source.downsampling.delete(measurement)

    found = source.aggregate(measurement, "n", wanted, start_ns=now_ns - 60 * SECOND)
    source.drop(measurement)
    assert written == {(tuple(r.tags.items()), r.start_ns): r.values for r in found}
    assert (state.status, state.last_error) == ("active", "")


def test_a_bucket_keeps_points_for_as_long_as_it_is_set(target: str) -> None:
    store = bucket(target).open()
    assert isinstance(store, InfluxStore)

    changes = [store.retention.change(seconds) for seconds in (3600, 3600, 7 * 86400, None)]

    assert changes == [True, False, True, True]
    assert store.retention.seconds() is None
    store.close()
