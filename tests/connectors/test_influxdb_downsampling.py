"""Tasks that downsample a bucket, and for how long a bucket keeps points."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from influxdb_tasks_server import TasksServer

from sage_connectors.influxdb import InfluxStore
from sage_connectors.influxdb_downsampling import Downsampling
from sage_flink.common import NotFound, Rejected
from sage_flink.tsdb import Aggregation, bucket

SECOND = 10**9
MINUTE = 60 * SECOND


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
