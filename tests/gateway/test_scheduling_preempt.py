"""Background work at a replica gives way to who waits, and loses nothing but the work begun."""

import asyncio

import pytest

from sage_gateway.requests.request import BACKGROUND
from sage_gateway.scheduling import PLAIN, POLICIES, Bounds, Queue, Wishes, giving_way
from sage_gateway.scheduling.preemption import Turns

BEHIND = Wishes(priority=BACKGROUND)


class Replica:
    """So many places, a queue before them, and requests that last until they are told to end."""

    def __init__(self, places: int, slots: int | None = None) -> None:
        self.free = places
        self.idle = places if slots is None else slots
        bounds = Bounds(100, 30.0)
        self.queue = Queue(
            "m",
            POLICIES["fifo"](),
            bounds,
            room=lambda taken: self.free > taken,
            ready=lambda: 1,
            spare=lambda taken: min(self.free, self.idle) > taken,
        )
        self.ends: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []

    async def serve(self, name: str) -> str:
        self.free -= 1
        self.idle -= 1
        self.begun.append(name)
        try:
            await self.ends.setdefault(name, asyncio.Event()).wait()
        finally:
            self.free += 1
            self.idle += 1
            self.queue.pump()
        return name

    async def user(self, name: str) -> str:
        await self.queue.enter(PLAIN, 10)
        return await self.serve(name)

    async def background(self, name: str) -> str:
        await self.queue.enter(BEHIND, 10)
        return await giving_way(
            self.queue.turns, lambda: self.serve(name), lambda: self.queue.resume(BEHIND, 10)
        )

    def end(self, name: str) -> None:
        self.ends.setdefault(name, asyncio.Event()).set()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_waits_gets_the_place_of_the_youngest_background_request() -> None:
    replica = Replica(2)
    behind = [asyncio.create_task(replica.background(name)) for name in ("old", "young")]
    await settled()

    user = asyncio.create_task(replica.user("user"))
    await settled()
    assert replica.begun == ["old", "young", "user"]
    replica.end("user")
    await settled()

    assert replica.begun == ["old", "young", "user", "young"]
    assert replica.queue.turns.preempted == 1
    for name in ("old", "young"):
        replica.end(name)
    assert await asyncio.gather(user, *behind) == ["user", "old", "young"]
    assert (replica.free, len(replica.queue)) == (2, 0)


async def test_with_room_or_among_themselves_nobody_gives_way() -> None:
    replica = Replica(2)
    tasks = [asyncio.create_task(replica.background("a"))]
    await settled()
    tasks.append(asyncio.create_task(replica.user("user")))
    tasks.append(asyncio.create_task(replica.background("b")))
    await settled()

    assert replica.begun == ["a", "user"]
    for name in ("a", "user", "b"):
        replica.end(name)
    assert await asyncio.gather(*tasks) == ["a", "user", "b"]
    assert replica.queue.turns.preempted == 0


async def test_who_gave_way_is_before_all_other_background_and_after_all_others() -> None:
    replica = Replica(1)
    tasks = [asyncio.create_task(replica.background("first"))]
    await settled()
    tasks += [asyncio.create_task(replica.background(name)) for name in ("second", "third")]
    tasks += [asyncio.create_task(replica.user(name)) for name in ("user 1", "user 2")]
    await settled()
    for name in ("user 1", "user 2", "first", "second", "third"):
        replica.end(name)
        await settled()

    assert replica.begun == ["first", "user 1", "user 2", "first", "second", "third"]
    assert replica.queue.turns.preempted == 1
    await asyncio.gather(*tasks)


async def test_after_three_times_it_runs_to_its_end() -> None:
    replica = Replica(1)
    behind = asyncio.create_task(replica.background("batch"))
    await settled()
    for i in range(4):
        user = asyncio.create_task(replica.user(f"user {i}"))
        await settled()
        gave_way = replica.begun[-1] == f"user {i}"
        assert gave_way == (i < 3)
        replica.end(f"user {i}")
        if not gave_way:
            replica.end("batch")
        assert await user == f"user {i}"
        await settled()

    assert await behind == "batch"
    assert replica.queue.turns.preempted == 3


async def test_a_caller_who_goes_while_it_gives_way_is_gone() -> None:
    replica = Replica(1)
    behind = asyncio.create_task(replica.background("batch"))
    await settled()
    user = asyncio.create_task(replica.user("user"))
    await asyncio.sleep(0)
    behind.cancel()

    with pytest.raises(asyncio.CancelledError):
        await behind
    replica.end("user")
    assert await user == "user"
    assert (replica.free, len(replica.queue)) == (1, 0)


async def test_a_cancelled_caller_is_not_taken_for_one_who_gives_way() -> None:
    replica = Replica(1)
    behind = asyncio.create_task(replica.background("batch"))
    await settled()
    behind.cancel()

    with pytest.raises(asyncio.CancelledError):
        await behind
    assert replica.queue.turns.preempted == 0


async def test_an_answer_that_comes_in_the_same_moment_counts() -> None:
    turns = Turns()

    async def work() -> str:
        with turns.begin():
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                return "answered all the same"
        return "gave way"

    task = asyncio.create_task(work())
    await settled()
    turns.give_way(1)

    assert await task == "answered all the same"
    assert task.cancelling() == 0
    turns.give_way(1)  # nobody is left


async def test_no_more_give_way_than_wait() -> None:
    replica = Replica(4)
    behind = [asyncio.create_task(replica.background(str(i))) for i in range(4)]
    await settled()

    users = [asyncio.create_task(replica.user(f"user {i}")) for i in range(2)]
    await settled()

    assert replica.queue.turns.preempted == 2
    assert replica.begun[4:] == ["user 0", "user 1"]
    for name in ("0", "1", "2", "3", "user 0", "user 1"):
        replica.end(name)
    await asyncio.gather(*users, *behind)


async def test_of_those_who_gave_way_too_often_one_runs_at_a_time() -> None:
    replica = Replica(2)
    behind = [asyncio.create_task(replica.background(name)) for name in ("a", "b")]
    await settled()
    for i in range(7):
        user = asyncio.create_task(replica.user(f"user {i}"))
        await settled()
        assert replica.begun[-1] == f"user {i}"
        replica.end(f"user {i}")
        await user
        await settled()

    assert replica.queue.turns.preempted == 6
    assert replica.free == 1
    for name in ("a", "b"):
        replica.end(name)
    assert await asyncio.gather(*behind) == ["a", "b"]


async def test_background_takes_only_what_is_computed_at_once_and_leaves_that_to_others() -> None:
    replica = Replica(100, slots=2)
    behind = [asyncio.create_task(replica.background(name)) for name in ("a", "b", "c")]
    await settled()
    assert replica.begun == ["a", "b"]

    user = asyncio.create_task(replica.user("user"))
    await settled()
    assert replica.begun == ["a", "b", "user"]
    assert (replica.idle, replica.queue.turns.preempted, len(replica.queue)) == (0, 1, 2)

    for name in ("user", "a", "b", "c"):
        replica.end(name)
    assert await asyncio.gather(user, *behind) == ["user", "a", "b", "c"]
    assert replica.begun == ["a", "b", "user", "b", "c"]


async def test_beside_users_who_never_wait_background_still_gets_a_turn() -> None:
    replica = Replica(100, slots=1)
    first = asyncio.create_task(replica.user("user 0"))
    await settled()
    behind = asyncio.create_task(replica.background("batch"))
    await settled()
    for i in range(1, 25):
        user = asyncio.create_task(replica.user(f"user {i}"))
        await settled()
        replica.end(f"user {i}")
        await user
        await settled()

    assert "batch" in replica.begun
    for name in ("user 0", "batch"):
        replica.end(name)
    assert await asyncio.gather(first, behind) == ["user 0", "batch"]
