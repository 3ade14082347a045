"""Models on one device: each has its share, and the foreground of all precedes background."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import ConfigError
from sage_gateway.config.pool_file import validate
from sage_gateway.config.pool_spec import PoolSpec
from sage_gateway.engines import KNOWN
from sage_gateway.requests.request import BACKGROUND
from sage_gateway.scheduling import (
    DEFAULT_HINTS,
    POLICIES,
    DeviceUsage,
    Queue,
    QueueLimits,
    RequestHints,
    SharedDevice,
    run_preemptible,
)
from sage_gateway.scheduling.shared_device import has_room

BACKGROUND_HINTS = RequestHints(priority=BACKGROUND)

uses = st.builds(
    DeviceUsage, st.sampled_from([1.0, 2.0, 5.0]), st.integers(0, 12), st.integers(0, 12)
)


@given(concurrency=st.integers(1, 16), mine=uses, others=st.lists(uses, max_size=3))
def test_a_full_device_has_no_free_slot(
    concurrency: int, mine: DeviceUsage, others: list[DeviceUsage]
) -> None:
    busy = mine.busy + sum(other.busy for other in others)

    assert not (has_room(concurrency, mine, others) and busy >= concurrency)


@given(concurrency=st.integers(2, 16), others=st.lists(uses, min_size=1, max_size=1))
def test_a_model_without_requests_has_a_free_slot_unless_the_device_is_full(
    concurrency: int, others: list[DeviceUsage]
) -> None:
    busy = sum(other.busy for other in others)

    assert has_room(concurrency, DeviceUsage(1.0, 0, 1), others) == (busy < concurrency)


@given(concurrency=st.integers(2, 16), share=st.sampled_from([1.0, 3.0]))
def test_a_model_alone_takes_all_slots_but_one(concurrency: int, share: float) -> None:
    busy = 0
    while has_room(concurrency, DeviceUsage(share, busy, 0), [DeviceUsage(1.0, 0, 0)]):
        busy += 1

    assert busy == concurrency - 1


class SimulatedModel:
    """A model without engines: requests run until the test ends them."""

    def __init__(self, device: SharedDevice, share: float = 1.0) -> None:
        self.busy, self.most, self.share = 0, 0, share
        self.device = device
        self.ends: list[asyncio.Event] = []
        self.queue = Queue(
            "m",
            POLICIES["fifo"](),
            QueueLimits(100, 30.0),
            has_room=lambda _: device.has_room(self),
            ready_replicas=lambda: 1,
            has_background_room=lambda _: (
                device.has_room(self) and device.has_background_room(self)
            ),
            on_room_freed=device.dispatch,
            on_demand=self.on_demand,
        )
        device.join(self)

    def device_usage(self) -> DeviceUsage:
        return DeviceUsage(
            self.share, self.busy + self.queue.dispatching, self.queue.foreground_count
        )

    def dispatch(self) -> None:
        self.queue.dispatch()

    def preempt_background(self, count: int) -> None:
        self.queue.preemptible.preempt_until(count)

    def on_demand(self, count: int) -> None:
        self.preempt_background(count)
        self.device.preempt_for(self, count)

    async def serve(self) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.ends.append(end := asyncio.Event())
        try:
            await end.wait()
        finally:
            self.busy -= 1
            self.ends.remove(end)
            self.device.dispatch()

    async def user(self) -> None:
        await self.queue.admit(DEFAULT_HINTS, 10)
        await self.serve()

    async def background(self) -> None:
        await self.queue.admit(BACKGROUND_HINTS, 10)
        await run_preemptible(
            self.queue.preemptible,
            self.serve,
            lambda: self.queue.requeue_preempted(BACKGROUND_HINTS, 10),
        )


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(*works: Any) -> Any:
    tasks = [asyncio.create_task(work) for work in works]
    await settle()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_under_load_each_model_reaches_its_share() -> None:
    device = SharedDevice(8)
    chat, embed = SimulatedModel(device, 3.0), SimulatedModel(device, 1.0)

    async with running(*(embed.user() for _ in range(20)), *(chat.user() for _ in range(20))):
        assert embed.busy == 7, "alone at first, it leaves one place"
        assert chat.busy == 1
        for _ in range(20):
            embed.ends[0].set()
            await settle()
            assert embed.busy + chat.busy == 8
            if chat.busy == 6:
                break
        assert (chat.busy, embed.busy) == (6, 2)
        chat.ends[0].set()
        await settle()
        assert (chat.busy, embed.busy) == (6, 2)


async def test_background_of_one_model_is_preempted_for_users_of_the_other() -> None:
    device = SharedDevice(4)
    chat, embed = SimulatedModel(device), SimulatedModel(device)

    async with running(*(embed.background() for _ in range(6)), chat.user()):
        assert (chat.busy, embed.busy) == (1, 3)
        async with running(*(chat.user() for _ in range(5))):
            assert embed.queue.preemptible.preempted == 2
            assert (chat.busy, embed.busy) == (3, 1), "one slot stays free for the other model"
        assert (chat.busy, embed.busy) == (1, 3)


async def test_a_cancelled_queued_request_frees_its_reserved_slot() -> None:
    device = SharedDevice(2)
    chat, embed = SimulatedModel(device), SimulatedModel(device)

    async with running(chat.user(), embed.user(), embed.user()) as (_, _, second):
        assert (chat.busy, embed.busy) == (1, 1)
        async with running(chat.user()):
            second.cancel()
            await settle()
            embed.ends[0].set()
            await settle()
            assert (chat.busy, embed.busy) == (1, 0), "one slot stays free for the idle model"


def test_a_models_device_must_be_listed() -> None:
    models = {"talk": {"engine": "remote", "kind": "chat", "device": "gpu1"}}
    spec = PoolSpec.model_validate({"models": models, "devices": {"gpu0": {"concurrency": 4}}})

    with pytest.raises(ConfigError, match="'gpu1' is not one of `devices`; there are gpu0"):
        validate(spec, KNOWN, "pool.yaml")


def test_a_burst_at_one_model_hardly_delays_the_other_on_the_same_device(
    start: Any, fake: Any
) -> None:
    models = {name: fake(device="gpu0") for name in ("talk", "other")}

    def slow(gateway: Any) -> httpx.Response:
        answer: httpx.Response = gateway.chat("hold burst", "other")
        return answer

    shared = {"devices": {"gpu0": {"concurrency": 4}}}
    with start(models, pool=shared) as gateway, ThreadPoolExecutor(12) as callers:
        burst = [callers.submit(slow, gateway) for _ in range(12)]
        gateway.until(lambda: len(gateway.pool.models["other"].queue) == 9)
        assert gateway.chat("echo hi").status_code == 200
        answered = sum(one.done() for one in burst)
        rows = {row["id"]: row for row in gateway.client.get("/pool/models").json()["data"]}
        gateway.release("burst", "other")
        assert {one.result().status_code for one in burst} == {200}

    assert rows["other"]["in_flight"] == 3
    assert rows["other"]["spec"]["device"] == "gpu0"
    assert answered == 0, "the other model's request waited for the burst"
