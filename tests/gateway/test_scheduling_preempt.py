"""Background requests at a replica are preempted for queued ones, and lose only engine work."""

import asyncio

import pytest

from sage_gateway.requests.request import BACKGROUND
from sage_gateway.scheduling import (
    DEFAULT_HINTS,
    POLICIES,
    Queue,
    QueueLimits,
    RequestHints,
    run_preemptible,
)
from sage_gateway.scheduling.preemption import PreemptibleRequests

BACKGROUND_HINTS = RequestHints(priority=BACKGROUND)


class Replica:
    """A replica with slots and a queue; requests run until the test ends them."""

    def __init__(self, places: int, slots: int | None = None) -> None:
        self.free = places
        self.idle = places if slots is None else slots
        bounds = QueueLimits(100, 30.0)
        self.queue = Queue(
            "m",
            POLICIES["fifo"](),
            bounds,
            has_room=lambda taken: self.free > taken,
            ready_replicas=lambda: 1,
            has_background_room=lambda taken: min(self.free, self.idle) > taken,
        )
        self.ends: dict[str, asyncio.Event] = {}
        self.started: list[str] = []

    async def serve(self, name: str) -> str:
        self.free -= 1
        self.idle -= 1
        self.started.append(name)
        try:
            await self.ends.setdefault(name, asyncio.Event()).wait()
        finally:
            self.free += 1
            self.idle += 1
            self.queue.dispatch()
        return name

    async def user(self, name: str) -> str:
        await self.queue.admit(DEFAULT_HINTS, 10)
        return await self.serve(name)

    async def background(self, name: str) -> str:
        await self.queue.admit(BACKGROUND_HINTS, 10)
        return await run_preemptible(
            self.queue.preemptible,
            lambda: self.serve(name),
            lambda: self.queue.requeue_preempted(BACKGROUND_HINTS, 10),
        )

    def end(self, name: str) -> None:
        self.ends.setdefault(name, asyncio.Event()).set()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_queued_request_preempts_the_youngest_background_request() -> None:
    replica = Replica(2)
    behind = [asyncio.create_task(replica.background(name)) for name in ("old", "young")]
    await settle()

    user = asyncio.create_task(replica.user("user"))
    await settle()
    assert replica.started == ["old", "young", "user"]
    replica.end("user")
    await settle()

    assert replica.started == ["old", "young", "user", "young"]
    assert replica.queue.preemptible.preempted == 1
    for name in ("old", "young"):
        replica.end(name)
    assert await asyncio.gather(user, *behind) == ["user", "old", "young"]
    assert (replica.free, len(replica.queue)) == (2, 0)


async def test_background_is_not_preempted_if_a_slot_is_free_or_for_background() -> None:
    replica = Replica(2)
    tasks = [asyncio.create_task(replica.background("a"))]
    await settle()
    tasks.append(asyncio.create_task(replica.user("user")))
    tasks.append(asyncio.create_task(replica.background("b")))
    await settle()

    assert replica.started == ["a", "user"]
    for name in ("a", "user", "b"):
        replica.end(name)
    assert await asyncio.gather(*tasks) == ["a", "user", "b"]
    assert replica.queue.preemptible.preempted == 0


async def test_a_preempted_request_precedes_other_background_and_follows_the_foreground() -> None:
    replica = Replica(1)
    tasks = [asyncio.create_task(replica.background("first"))]
    await settle()
    tasks += [asyncio.create_task(replica.background(name)) for name in ("second", "third")]
    tasks += [asyncio.create_task(replica.user(name)) for name in ("user 1", "user 2")]
    await settle()
    for name in ("user 1", "user 2", "first", "second", "third"):
        replica.end(name)
        await settle()

    assert replica.started == ["first", "user 1", "user 2", "first", "second", "third"]
    assert replica.queue.preemptible.preempted == 1
    await asyncio.gather(*tasks)


async def test_after_three_preemptions_a_request_runs_to_its_end() -> None:
    replica = Replica(1)
    behind = asyncio.create_task(replica.background("batch"))
    await settle()
    for i in range(4):
        user = asyncio.create_task(replica.user(f"user {i}"))
        await settle()
        preempted = replica.started[-1] == f"user {i}"
        assert preempted == (i < 3)
        replica.end(f"user {i}")
        if not preempted:
            replica.end("batch")
        assert await user == f"user {i}"
        await settle()

    assert await behind == "batch"
    assert replica.queue.preemptible.preempted == 3


async def test_a_client_can_disconnect_during_the_preemption() -> None:
    replica = Replica(1)
    behind = asyncio.create_task(replica.background("batch"))
    await settle()
    user = asyncio.create_task(replica.user("user"))
    await asyncio.sleep(0)
    behind.cancel()

    with pytest.raises(asyncio.CancelledError):
        await behind
    replica.end("user")
    assert await user == "user"
    assert (replica.free, len(replica.queue)) == (1, 0)


async def test_a_cancelled_request_does_not_count_as_preempted() -> None:
    replica = Replica(1)
    behind = asyncio.create_task(replica.background("batch"))
    await settle()
    behind.cancel()

    with pytest.raises(asyncio.CancelledError):
        await behind
    assert replica.queue.preemptible.preempted == 0


async def test_an_answer_at_the_moment_of_the_preemption_counts() -> None:
    requests = PreemptibleRequests()

    async def work() -> str:
        with requests.section():
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                return "answered all the same"
        return "gave way"

    task = asyncio.create_task(work())
    await settle()
    requests.preempt_until(1)

    assert await task == "answered all the same"
    assert task.cancelling() == 0
    requests.preempt_until(1)  # no request is left


async def test_at_most_as_many_are_preempted_as_are_queued() -> None:
    replica = Replica(4)
    behind = [asyncio.create_task(replica.background(str(i))) for i in range(4)]
    await settle()

    users = [asyncio.create_task(replica.user(f"user {i}")) for i in range(2)]
    await settle()

    assert replica.queue.preemptible.preempted == 2
    assert replica.started[4:] == ["user 0", "user 1"]
    for name in ("0", "1", "2", "3", "user 0", "user 1"):
        replica.end(name)
    await asyncio.gather(*users, *behind)


async def test_only_one_non_preemptible_background_request_runs_at_a_time() -> None:
    replica = Replica(2)
    behind = [asyncio.create_task(replica.background(name)) for name in ("a", "b")]
    await settle()
    for i in range(7):
        user = asyncio.create_task(replica.user(f"user {i}"))
        await settle()
        assert replica.started[-1] == f"user {i}"
        replica.end(f"user {i}")
        await user
        await settle()

    assert replica.queue.preemptible.preempted == 6
    assert replica.free == 1
    for name in ("a", "b"):
        replica.end(name)
    assert await asyncio.gather(*behind) == ["a", "b"]


async def test_background_uses_only_free_slots_of_the_engine_and_is_preempted_there() -> None:
    replica = Replica(100, slots=2)
    behind = [asyncio.create_task(replica.background(name)) for name in ("a", "b", "c")]
    await settle()
    assert replica.started == ["a", "b"]

    user = asyncio.create_task(replica.user("user"))
    await settle()
    assert replica.started == ["a", "b", "user"]
    assert (replica.idle, replica.queue.preemptible.preempted, len(replica.queue)) == (0, 1, 2)

    for name in ("user", "a", "b", "c"):
        replica.end(name)
    assert await asyncio.gather(user, *behind) == ["user", "a", "b", "c"]
    assert replica.started == ["a", "b", "user", "b", "c"]


async def test_background_is_dispatched_even_if_users_always_bypass_the_queue() -> None:
    replica = Replica(100, slots=1)
    first = asyncio.create_task(replica.user("user 0"))
    await settle()
    behind = asyncio.create_task(replica.background("batch"))
    await settle()
    for i in range(1, 25):
        user = asyncio.create_task(replica.user(f"user {i}"))
        await settle()
        replica.end(f"user {i}")
        await user
        await settle()

    assert "batch" in replica.started
    for name in ("user 0", "batch"):
        replica.end(name)
    assert await asyncio.gather(first, behind) == ["user 0", "batch"]
