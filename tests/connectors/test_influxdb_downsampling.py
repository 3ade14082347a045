"""Tasks that downsample a bucket, and for how long a bucket keeps points."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sage_connectors.influxdb import InfluxStore
from sage_connectors.influxdb_downsampling import Downsampling
from sage_flink.common import NotFound, Rejected
from sage_flink.tsdb import Aggregation, Point, bucket

SECOND = 10**9
MINUTE = 60 * SECOND
FUNCTIONS = ("count", "sum", "mean", "min", "max", "spread", "first", "last", "stddev", "p90")


class TasksHandler(BaseHTTPRequestHandler):
    """InfluxDB's API of buckets and tasks, as far as a client of them needs it."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        kind = url.path.split("/")[3]
        found = list(self.server.rows[kind].values())  # type: ignore[attr-defined]
        if "name" in asked:
            found = [row for row in found if row["name"] == asked["name"]]
        found = [row for row in found if row["id"] > asked.get("after", "")]
        limit = int(asked.get("limit", 20))
        links = {"self": self.path} | ({"next": "/next"} if len(found) >= limit else {})
        self._send({kind: found[:limit], "links": links})

    def do_POST(self) -> None:
        kind = self.path.split("?")[0].split("/")[3]
        self._store(kind, f"{self.server.count():016x}", self._body())  # type: ignore[attr-defined]

    def do_PATCH(self) -> None:
        *_, kind, id_ = self.path.split("?")[0].split("/")
        rows = self.server.rows[kind]  # type: ignore[attr-defined]
        self._store(kind, id_, rows[id_] | self._body())

    def do_DELETE(self) -> None:
        self.server.changes += 1  # type: ignore[attr-defined]
        *_, kind, id_ = self.path.split("/")
        del self.server.rows[kind][id_]  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def _store(self, kind: str, id_: str, row: dict[str, Any]) -> None:
        if kind == "tasks":
            name = row["flux"].split('name: "', 1)[1].split('"', 1)[0]
            row |= {"name": name, "orgID": "1" * 16}
        self.server.changes += 1  # type: ignore[attr-defined]
        self.server.rows[kind][id_] = row | {"id": id_}  # type: ignore[attr-defined]
        self._send(row | {"id": id_})

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _send(self, body: object) -> None:
        sent = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args: object) -> None:
        """Log no request."""


class TasksServer(HTTPServer):
    """Keeps what it receives, and counts the changes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TasksHandler)
        self.changes = self.made = 0
        self.rows: dict[str, dict[str, dict[str, Any]]] = {
            "buckets": {"b1": {"id": "b1", "name": "ops", "orgID": "o", "retentionRules": []}},
            "tasks": {},
            "orgs": {"o": {"id": "o", "name": "sage"}},
        }

    def count(self) -> int:
        self.made += 1
        return self.made


@pytest.fixture
def server() -> Iterator[TasksServer]:
    with TasksServer() as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


@pytest.fixture
def ops(server: TasksServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[InfluxStore]:
    monkeypatch.setenv("SAGE_INFLUXDB_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("SAGE_INFLUXDB_KEY", "key")
    store = bucket("ops").open()
    assert isinstance(store, InfluxStore)
    yield store
    store.close()


def minutely(name: str = "minute", **options: Any) -> Downsampling:
    wanted = options.pop("wanted", Aggregation(("mean", "p99"), MINUTE, by=("host", "disk")))
    return Downsampling(name, "latency", "ms", "ops_1m", wanted, **options)


def test_the_same_task_again_changes_nothing(ops: InfluxStore, server: TasksServer) -> None:
    assert ops.downsampling.put(minutely())
    changes = server.changes

    assert not ops.downsampling.put(minutely())

    assert server.changes == changes
    (task,) = server.rows["tasks"].values()
    assert task["flux"].startswith('option task = {name: "sage/ops/minute", every: 60s}\n')
    assert [row["name"] for row in server.rows["buckets"].values()] == ["ops", "ops_1m"]


def test_another_task_of_the_name_takes_its_place(ops: InfluxStore, server: TasksServer) -> None:
    ops.downsampling.put(minutely())

    assert ops.downsampling.put(minutely(late_ns=10 * MINUTE))

    (task,) = server.rows["tasks"].values()
    assert f"start = stop - {11 * MINUTE}" in task["flux"]


def test_a_paused_task_runs_again(ops: InfluxStore, server: TasksServer) -> None:
    ops.downsampling.put(minutely())
    for task in server.rows["tasks"].values():
        task["status"] = "inactive"

    assert ops.downsampling.put(minutely())
    assert [state.status for state in ops.downsampling.states()] == ["active"]


def test_of_two_tasks_of_one_name_one_stays(ops: InfluxStore, server: TasksServer) -> None:
    ops.downsampling.put(minutely())
    (task,) = server.rows["tasks"].values()
    server.rows["tasks"]["f" * 16] = task | {"id": "f" * 16}

    ops.downsampling.put(minutely())

    assert len(server.rows["tasks"]) == 1


def test_tasks_are_listed_and_deleted_by_name(ops: InfluxStore, server: TasksServer) -> None:
    for name in ("b", "a"):
        ops.downsampling.put(minutely(name))
    foreign = {"id": "e" * 16, "name": "mine", "flux": "x", "orgID": "o", "status": "active"}
    server.rows["tasks"]["e" * 16] = foreign

    states = ops.downsampling.states()
    ops.downsampling.delete("a")

    assert [state.name for state in states] == ["a", "b"]
    assert states[0].description == (
        "mean, p99 of ms of latency, by host, disk, every 60 s, into ops_1m"
    )
    assert [state.name for state in ops.downsampling.states()] == ["b"]
    with pytest.raises(NotFound, match="no task 'a' of bucket 'ops'; there are: b"):
        ops.downsampling.delete("a")
    assert "e" * 16 in server.rows["tasks"]


def test_a_bucket_has_tasks_of_its_own(ops: InfluxStore, server: TasksServer) -> None:
    nested = replace(ops.downsampling, bucket="ops/minute")
    nested.put(minutely("x"))

    assert ops.downsampling.states() == []
    assert ops.downsampling.put(minutely("minute/x"))
    assert len(server.rows["tasks"]) == 2


def test_a_task_is_found_among_many(ops: InfluxStore, server: TasksServer) -> None:
    for n in range(250):
        id_ = f"0{n:015x}"
        row = {"id": id_, "name": f"other {n}", "flux": "x", "orgID": "o", "status": "active"}
        server.rows["tasks"][id_] = row
    server.made = 2**48
    ops.downsampling.put(minutely())

    assert not ops.downsampling.put(minutely())
    assert [state.name for state in ops.downsampling.states()] == ["minute"]


def test_a_retention_that_is_set_already_changes_nothing(
    ops: InfluxStore, server: TasksServer
) -> None:
    assert ops.retention.seconds() is None
    assert not ops.retention.change(None)

    assert ops.retention.change(7200)
    changes = server.changes

    assert not ops.retention.change(7200)
    assert (ops.retention.seconds(), server.changes) == (7200, changes)
    rule = server.rows["buckets"]["b1"]["retentionRules"][0]
    assert (rule["everySeconds"], rule["shardGroupDurationSeconds"]) == (7200, 0)
    with pytest.raises(Rejected, match="at least 3600 s, an hour, got 60"):
        ops.retention.change(60)


@pytest.mark.parametrize("nasty", ['x") |> drop() //', "${x}", "a\\b"])
def test_no_name_breaks_out_of_a_task(ops: InfluxStore, server: TasksServer, nasty: str) -> None:
    one = Downsampling(
        nasty, nasty, nasty, "ops_1m", Aggregation(("max",), SECOND, by=(nasty,)), tags={"k": nasty}
    )
    ops.downsampling.put(one)

    (task,) = server.rows["tasks"].values()
    escaped = nasty.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    assert nasty not in task["flux"].replace(escaped, "")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: minutely(""), "the name must be text on one line"),
        (lambda: minutely("a\nb"), "the name must be text on one line"),
        (lambda: minutely(late_ns=-1), "late_ns must be 0 or more"),
        (lambda: minutely(wanted=Aggregation(("mean",))), "every_ns in whole seconds"),
        (lambda: minutely(wanted=Aggregation(("mean",), 1)), "every_ns in whole seconds"),
        (
            lambda: minutely(wanted=Aggregation(("mean",), MINUTE, 2 * MINUTE)),
            "windows that are apart",
        ),
        (
            lambda: minutely(wanted=Aggregation(("mean",), session_gap_ns=MINUTE)),
            "every_ns in whole seconds",
        ),
        (lambda: minutely(wanted=Aggregation(("rate",), MINUTE)), "no task has a rate"),
        (
            lambda: Downsampling("n", "_m", "v", "t", Aggregation(("max",), MINUTE)),
            "names that start with _",
        ),
    ],
)
def test_a_task_that_no_server_could_run_is_refused(make, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        make()


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


@pytest.mark.service
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


@pytest.mark.service
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


@pytest.mark.service
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


@pytest.mark.service
def test_a_bucket_keeps_points_for_as_long_as_it_is_set(target: str) -> None:
    store = bucket(target).open()
    assert isinstance(store, InfluxStore)

    changes = [store.retention.change(seconds) for seconds in (3600, 3600, 7 * 86400, None)]

    assert changes == [True, False, True, True]
    assert store.retention.seconds() is None
    store.close()
