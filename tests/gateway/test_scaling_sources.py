"""The inputs from Flink's REST API, and the points in the time-series store."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from sage_flink.platform.record_accounting import STEPS, CountedStep, encode_steps
from sage_flink.tsdb import Point, bucket
from sage_gateway.autoscaling.flink_jobs import FlinkJobs
from sage_gateway.autoscaling.streams import bottleneck
from sage_gateway.storage.points import WAITING_MAX, Points

STEPS_TEXT = encode_steps(
    [CountedStep("texts", "read", ()), CountedStep("embed", "call", ("texts",))]
)
PAGES: dict[str, Any] = {
    "/jobs/overview": {
        "jobs": [
            {"jid": "j1", "name": "ingest", "state": "RUNNING"},
            {"jid": "j2", "name": "ingest", "state": "CANCELED"},
            {"jid": "j3", "name": "other", "state": "RUNNING"},
        ]
    },
    "/jobs/j1": {
        "vertices": [{"id": "a", "name": "Source: texts"}, {"id": "b", "name": "embed"}],
        "plan": {"nodes": [{"id": "b", "inputs": [{"id": "a"}]}, {"id": "a"}]},
    },
    "/jobs/j1/config": {"execution-config": {"user-config": {STEPS: STEPS_TEXT}}},
}
LAG = "Source__texts.pendingRecords"


class Flink:
    """A fake of Flink's REST API with a job that has its call as the bottleneck, and a ``lag``."""

    def __init__(self) -> None:
        self.lag: float | None = 100.0
        self.requests: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if not request.path.endswith("/subtasks/metrics"):
            return web.json_response(PAGES[request.path])
        source = "/vertices/a/" in request.path
        if request.query.get("agg") == "max":
            busy, held = (100.0, 900.0) if source else (990.0, 0.0)
            times = {"busyTimeMsPerSecond": busy, "backPressuredTimeMsPerSecond": held}
            return web.json_response([{"id": k, "max": v} for k, v in times.items()])
        if request.query.get("agg") == "sum":
            return web.json_response([{"id": LAG, "sum": self.lag}])
        metrics = [{"id": LAG}] if source and self.lag is not None else []
        return web.json_response([{"id": "numRecordsIn"}, *metrics])


@contextlib.asynccontextmanager
async def flink() -> AsyncIterator[tuple[Flink, FlinkJobs]]:
    server, app = Flink(), web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield server, FlinkJobs(f"http://127.0.0.1:{port}/")
    finally:
        await runner.cleanup()


async def test_a_running_job_is_read_with_its_lag_and_its_bottleneck() -> None:
    async with flink() as (server, jobs):
        await jobs.read(frozenset({"ingest"}), 100.0)
        server.lag = 400.0
        found = await jobs.read(frozenset({"ingest"}), 110.0)

    assert found.keys() == {"ingest"}
    job = found["ingest"]
    assert (job.lag, job.lag_rate) == (400, 30.0)
    one = bottleneck(job)
    assert one is not None
    assert (one.name, one.calls, one.inputs) == ("embed", True, ("Source: texts",))


async def test_constant_pages_are_read_once() -> None:
    async with flink() as (server, jobs):
        for second in range(3):
            await jobs.read(frozenset({"ingest"}), float(second))

    assert server.requests.count("/jobs/j1/config") == 1


async def test_a_source_without_a_lag_yet_is_read_again() -> None:
    async with flink() as (server, jobs):
        server.lag = None
        before = await jobs.read(frozenset({"ingest"}), 1.0)
        server.lag = 50.0
        after = await jobs.read(frozenset({"ingest"}), 2.0)

    assert (before["ingest"].lag, after["ingest"].lag) == (0, 50)
    assert after["ingest"].lag_rate == 0.0


async def test_jobs_with_other_names_are_not_read() -> None:
    async with flink() as (server, jobs):
        assert await jobs.read(frozenset({"unknown"}), 1.0) == {}

    assert server.requests == ["/jobs/overview"]


async def test_an_unavailable_cluster_is_a_network_error() -> None:
    with pytest.raises(aiohttp.ClientError):
        await FlinkJobs("http://127.0.0.1:1").read(frozenset({"ingest"}), 1.0)


def test_points_that_wait_for_the_store_are_bounded_and_losses_are_counted() -> None:
    registry = CollectorRegistry()
    points = Points(bucket("nowhere", store="memory"), registry)
    points.add(Point("m", {}, {"v": i}, i) for i in range(WAITING_MAX + 5))

    assert b'sage_gateway_points_total{how="lost"} 5.0' in generate_latest(registry)
