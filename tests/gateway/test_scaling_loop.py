"""The autoscaler with real models, queues and counters; replicas are states, not processes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sage_flink.tsdb import bucket
from sage_flink.tsdb.memory import forget
from sage_gateway.autoscaling.loop import Autoscaler
from sage_gateway.autoscaling.streams import JobStatus, Operator
from sage_gateway.config.pool_spec import PoolSpec
from sage_gateway.controlplane.replica_factory import models_of
from sage_gateway.engines import ENGINES
from sage_gateway.errors import Conflict, GatewayError
from sage_gateway.models.model import Model
from sage_gateway.replicas.lifecycle import ProbeResult, ReplicaState, advance
from sage_gateway.scheduling import DEFAULT_HINTS
from sage_gateway.storage.points import Points

SLOW = JobStatus(
    "ingest",
    lag=500,
    lag_rate=50.0,
    operators=(Operator("read", 0.1, 0.9), Operator("map", 0.99, 0.0, ("read",))),
)


class ReplicaOwner:
    """Owns the replicas of a model: a new one is ready after 50 ms, a surplus one is removed."""

    def __init__(self, model: Model, room: int = 64) -> None:
        self.model = model
        self.room = room
        self.requests: list[int] = []

    def scale(self, model_name: str, replicas: int) -> None:
        assert model_name == self.model.name
        if replicas > self.room:
            why = f"{replicas} replicas need {replicas} GB, {self.room} are free"
            raise Conflict(why, code="does_not_fit")
        self.requests.append(replicas)
        self.model.wanted, slots = replicas, self.model.replica_slots
        for slot in slots[replicas:]:
            self.model.remove_slot(slot)
        while len(slots) < replicas:
            self.model.add_slot(len(slots))
        asyncio.get_running_loop().call_later(0.05, self.ready)

    def ready(self) -> None:
        for slot in self.model.replica_slots:
            now_s, health = time.monotonic(), self.model.spec.health
            slot.set_replica(advance(slot.replica, ProbeResult(True), now_s, health))
        self.model.queue.dispatch()


class Cluster:
    """A Flink cluster with one job, or an unavailable one."""

    def __init__(self, *jobs: JobStatus) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.requests: list[frozenset[str]] = []

    async def read(self, names: frozenset[str], _: float) -> dict[str, JobStatus]:
        self.requests.append(names)
        if not self.jobs:
            raise OSError("away")
        return {name: job for name, job in self.jobs.items() if name in names}


def _models(queue_timeout_s: float = 5.0, **scaling: Any) -> dict[str, Model]:
    talk = {"engine": "fake", "kind": "chat", "concurrency": 1, "queue_timeout_s": queue_timeout_s}
    talk["scaling"] = {"min": 0, "max": 3, "target_queue_wait_ms": 50} | scaling
    spec = PoolSpec.model_validate({"models": {"talk": talk}})
    return models_of(spec, ENGINES, Path())


@contextlib.asynccontextmanager
async def autoscaled_model(
    cluster: Cluster, *, room: int = 64, first: int = 1, store: str = "memory", **scaling: Any
) -> AsyncIterator[tuple[Model, ReplicaOwner, Autoscaler]]:
    models = _models(**({"up_cooldown_s": 0.1, "down_cooldown_s": 0.3, "idle_s": 0.5} | scaling))
    model = models["talk"]
    owner = ReplicaOwner(model, room)
    owner.ready()
    for slot in model.replica_slots[first:]:
        model.remove_slot(slot)
    model.wanted = first
    registry = CollectorRegistry()
    points = Points(bucket("scaling", store=store), registry)
    autoscaler = Autoscaler(
        models, owner, points, cluster, registry, interval_s=0.02, jobs_every_s=0.05
    )
    points.open()
    await autoscaler.open()
    try:
        yield model, owner, autoscaler
    finally:
        await autoscaler.close()
        await asyncio.to_thread(points.close)


async def until(wanted: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


async def ask(model: Model, seconds: float = 0.05) -> None:
    """One request through the queue, like those of the gateway."""
    model.load.record_request(time.monotonic(), "ingest")
    await model.queue.admit(DEFAULT_HINTS, 10)
    slot = next(
        m for m in model.replica_slots if m.replica.state is ReplicaState.READY and m.room()
    )
    slot.acquire()
    await asyncio.sleep(seconds)
    slot.release()
    model.load.record_response({}, time.monotonic())
    slot.on_room_freed()


def causes(autoscaler: Autoscaler) -> set[str]:
    return {one["cause"] for one in autoscaler.decisions.newest("talk", 200)}


async def test_replicas_are_added_under_load_and_removed_to_zero_afterwards() -> None:
    async with autoscaled_model(Cluster()) as (model, owner, autoscaler):
        asks = [asyncio.create_task(ask(model)) for _ in range(60)]
        await until(lambda: len(model.replica_slots) == 3)
        await asyncio.gather(*asks)
        await until(lambda: not model.replica_slots)

        assert owner.requests[-1] == 0
        assert {"queue_wait", "idle"} <= causes(autoscaler)


async def test_a_request_to_a_model_at_zero_is_queued_and_served() -> None:
    async with autoscaled_model(Cluster(), first=0, idle_s=60) as (model, owner, _):
        await asyncio.sleep(0.1)
        assert owner.requests == []
        await asyncio.gather(*(ask(model) for _ in range(3)))

        assert owner.requests[0] == 1


async def test_a_request_to_a_model_at_zero_wakes_the_autoscaler() -> None:
    async with autoscaled_model(Cluster(), first=0, idle_s=60) as (model, owner, autoscaler):
        await asyncio.sleep(0.1)
        autoscaler._interval_s = 30.0
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await ask(model)

        assert time.monotonic() - began < 5
        assert owner.requests == [1]


async def test_a_rejected_replica_is_logged_and_requests_do_not_wait_for_it() -> None:
    once = {"up_cooldown_s": 60, "queue_timeout_s": 0.5}
    async with autoscaled_model(Cluster(), first=0, room=0, **once) as (model, _, autoscaler):
        await asyncio.sleep(0.1)
        with pytest.raises(GatewayError):
            async with asyncio.timeout(10):
                await ask(model)
        assert "budget" in causes(autoscaler)
        [newest] = [o for o in autoscaler.decisions.newest("talk", 9) if o["cause"] == "budget"]

        assert "1 replicas need 1 GB, 0 are free" in newest["words"]
        assert await model.queue.admit(DEFAULT_HINTS, 10) is None  # forwarding reports the reason


async def test_a_dry_run_decides_without_scaling() -> None:
    async with autoscaled_model(Cluster(), dry_run=True, idle_s=60) as (model, owner, autoscaler):
        asks = [asyncio.create_task(ask(model)) for _ in range(20)]
        await until(lambda: "queue_wait" in causes(autoscaler))
        await asyncio.gather(*asks)

        assert owner.requests == []


async def test_the_slow_step_of_a_calling_job_is_named_and_no_replica_is_added() -> None:
    cluster = Cluster(SLOW)
    async with autoscaled_model(cluster) as (model, owner, autoscaler):
        await ask(model)
        await until(lambda: "not_the_pool" in causes(autoscaler))
        [newest] = [
            o for o in autoscaler.decisions.newest("talk", 9) if o["cause"] == "not_the_pool"
        ]

        assert "operator map of job ingest is (busy 0.99" in newest["words"]
        assert newest["inputs"]["lag"] == 500
        assert cluster.requests[-1] == {"ingest"}
        assert not any(count > 1 for count in owner.requests)


async def test_an_unavailable_cluster_does_not_stop_the_scaling() -> None:
    cluster = Cluster()
    async with autoscaled_model(cluster, idle_s=60) as (model, owner, _):
        asks = [asyncio.create_task(ask(model)) for _ in range(60)]
        await until(lambda: len(cluster.requests) > 1 and len(model.replica_slots) == 3)
        await asyncio.gather(*asks)

        assert owner.requests


async def test_every_decision_is_a_point_with_its_inputs() -> None:
    forget("scaling")
    store = bucket("scaling", store="memory").open()
    async with autoscaled_model(Cluster()) as (model, _, _):
        await ask(model)
        await asyncio.sleep(0.1)
    found = store.query("pool_decision", tags={"model": "talk"})

    assert len(found) > 2
    assert {"queue_length", "arrival_rate", "replicas", "replicas_wanted", "words"} <= set(
        found[0].fields
    )


async def test_an_unavailable_store_loses_only_the_points(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))  # no key there
    async with autoscaled_model(Cluster(), store="influxdb", idle_s=60) as (model, owner, _):
        asks = [asyncio.create_task(ask(model)) for _ in range(60)]
        await until(lambda: len(model.replica_slots) == 3)
        await asyncio.gather(*asks)

        assert owner.requests


async def test_another_model_of_the_same_name_starts_with_a_new_state() -> None:
    async with autoscaled_model(Cluster(), idle_s=60) as (model, _, autoscaler):
        for _ in range(5):
            await ask(model, 0.0)
        await asyncio.sleep(0.1)
        autoscaler._models["talk"] = _models(min=1)["talk"]  # type: ignore[index]
        await asyncio.sleep(0.2)
        [newest] = autoscaler.decisions.newest("talk", 1)

        assert newest["inputs"]["arrival_rate"] == 0.0  # a difference of two would be less
