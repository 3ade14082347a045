"""Models on one device: each has its share, and users of all go before background of all."""

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import ConfigError
from sage_gateway.config.pool_file import coherent
from sage_gateway.config.pool_spec import PoolSpec
from sage_gateway.engines import KNOWN
from sage_gateway.requests.request import BACKGROUND
from sage_gateway.scheduling import PLAIN, POLICIES, Bounds, Device, Queue, Use, Wishes, giving_way
from sage_gateway.scheduling.shared_device import room

BEHIND = Wishes(priority=BACKGROUND)

uses = st.builds(Use, st.sampled_from([1.0, 2.0, 5.0]), st.integers(0, 12), st.integers(0, 12))


@given(concurrency=st.integers(1, 16), mine=uses, others=st.lists(uses, max_size=3))
def test_room_is_never_more_than_there_is(concurrency: int, mine: Use, others: list[Use]) -> None:
    busy = mine.busy + sum(other.busy for other in others)

    assert not (room(concurrency, mine, others) and busy >= concurrency)


@given(concurrency=st.integers(2, 16), others=st.lists(uses, min_size=1, max_size=1))
def test_who_has_nothing_has_room_as_soon_as_there_is_any(
    concurrency: int, others: list[Use]
) -> None:
    busy = sum(other.busy for other in others)

    assert room(concurrency, Use(1.0, 0, 1), others) == (busy < concurrency)


@given(concurrency=st.integers(2, 16), share=st.sampled_from([1.0, 3.0]))
def test_one_alone_takes_all_but_a_place(concurrency: int, share: float) -> None:
    busy = 0
    while room(concurrency, Use(share, busy, 0), [Use(1.0, 0, 0)]):
        busy += 1

    assert busy == concurrency - 1


class Sharer:
    """A model without engines: requests last until they are told to end."""

    def __init__(self, device: Device, share: float = 1.0) -> None:
        self.busy, self.most, self.share = 0, 0, share
        self.device = device
        self.ends: list[asyncio.Event] = []
        self.queue = Queue(
            "m",
            POLICIES["fifo"](),
            Bounds(100, 30.0),
            room=lambda _: device.room(self),
            ready=lambda: 1,
            spare=lambda _: device.room(self) and device.calm(self),
            freed=device.pump,
            make_way=self.make_way,
        )
        device.join(self)

    def use(self) -> Use:
        return Use(self.share, self.busy + self.queue.on_their_way, self.queue.ahead)

    def pump(self) -> None:
        self.queue.pump()

    def give_way(self, wanted: int) -> None:
        self.queue.turns.give_way(wanted)

    def make_way(self, wanted: int) -> None:
        self.give_way(wanted)
        self.device.make_way(self, wanted)

    async def serve(self) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.ends.append(end := asyncio.Event())
        try:
            await end.wait()
        finally:
            self.busy -= 1
            self.ends.remove(end)
            self.device.pump()

    async def user(self) -> None:
        await self.queue.enter(PLAIN, 10)
        await self.serve()

    async def background(self) -> None:
        await self.queue.enter(BEHIND, 10)
        await giving_way(self.queue.turns, self.serve, lambda: self.queue.resume(BEHIND, 10))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(*works: Any) -> Any:
    tasks = [asyncio.create_task(work) for work in works]
    await settled()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_under_load_of_both_each_comes_to_its_share() -> None:
    device = Device(8)
    chat, embed = Sharer(device, 3.0), Sharer(device, 1.0)

    async with running(*(embed.user() for _ in range(20)), *(chat.user() for _ in range(20))):
        assert embed.busy == 7, "alone at first, it leaves one place"
        assert chat.busy == 1
        for _ in range(20):
            embed.ends[0].set()
            await settled()
            assert embed.busy + chat.busy == 8
            if chat.busy == 6:
                break
        assert (chat.busy, embed.busy) == (6, 2)
        chat.ends[0].set()
        await settled()
        assert (chat.busy, embed.busy) == (6, 2)


async def test_background_of_one_gives_way_to_users_of_the_other() -> None:
    device = Device(4)
    chat, embed = Sharer(device), Sharer(device)

    async with running(*(embed.background() for _ in range(6)), chat.user()):
        assert (chat.busy, embed.busy) == (1, 3)
        async with running(*(chat.user() for _ in range(5))):
            assert embed.queue.turns.preempted == 2
            assert (chat.busy, embed.busy) == (3, 1), "a place is left to who shares the device"
        assert (chat.busy, embed.busy) == (1, 3)


async def test_who_leaves_while_waiting_makes_room_for_the_other() -> None:
    device = Device(2)
    chat, embed = Sharer(device), Sharer(device)

    async with running(chat.user(), embed.user(), embed.user()) as (_, _, second):
        assert (chat.busy, embed.busy) == (1, 1)
        async with running(chat.user()):
            second.cancel()
            await settled()
            embed.ends[0].set()
            await settled()
            assert (chat.busy, embed.busy) == (1, 0), "a place is left to who has none"


def test_a_model_names_a_device_that_is_listed() -> None:
    models = {"talk": {"engine": "remote", "kind": "chat", "device": "gpu1"}}
    spec = PoolSpec.model_validate({"models": models, "devices": {"gpu0": {"concurrency": 4}}})

    with pytest.raises(ConfigError, match="'gpu1' is none of `devices`; there are gpu0"):
        coherent(spec, KNOWN, "pool.yaml")


def test_a_burst_at_one_model_hardly_delays_the_other_on_the_same_device(
    start: Any, fake: Any
) -> None:
    models = {name: fake(device="gpu0") for name in ("talk", "other")}

    def slow(gateway: Any) -> httpx.Response:
        answer: httpx.Response = gateway.chat("sleep 0.3", "other")
        return answer

    shared = {"devices": {"gpu0": {"concurrency": 4}}}
    with start(models, pool=shared) as gateway, ThreadPoolExecutor(12) as callers:
        burst = [callers.submit(slow, gateway) for _ in range(12)]
        gateway.until(lambda: len(gateway.pool.models["other"].queue) == 9)
        began = time.monotonic()
        assert gateway.chat("echo hi").status_code == 200
        took_s = time.monotonic() - began
        rows = {row["id"]: row for row in gateway.client.get("/pool/models").json()["data"]}
        assert {one.result().status_code for one in burst} == {200}

    assert rows["other"]["in_flight"] == 3
    assert rows["other"]["spec"]["device"] == "gpu0"
    assert took_s < 0.25
