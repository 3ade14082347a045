"""A model's queue: the order of dispatch, and one outcome per request. Replicas are a number."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_slots import Replicas, settle, suspends, waiting

from sage_gateway.errors import GatewayError
from sage_gateway.openai.error_table import status_of
from sage_gateway.scheduling import (
    DEFAULT_HINTS,
    POLICIES,
    RequestHints,
)


async def test_a_request_bypasses_an_empty_queue_when_a_slot_is_free() -> None:
    queue = Replicas(1).queue()

    assert not suspends(queue.admit(DEFAULT_HINTS, 10))
    assert len(queue) == 0


async def test_queued_requests_are_dispatched_in_order_as_slots_are_freed() -> None:
    replicas = Replicas(0)
    queue = replicas.queue()
    tasks = await waiting(queue, *(replicas.ask(queue, name) for name in "abc"))

    for _ in tasks:
        replicas.answer(queue)
        await settle()

    assert replicas.order == ["a", "b", "c"]
    assert queue.outcomes["dispatched"] == 3


async def test_the_slot_of_a_dispatched_request_is_not_assigned_twice() -> None:
    replicas = Replicas(0)
    queue = replicas.queue()
    (first,) = await waiting(queue, replicas.ask(queue, "first"))

    replicas.answer(queue)

    assert suspends(queue.admit(DEFAULT_HINTS, 10))
    await first
    assert replicas.free == 0


async def test_a_cancelled_request_leaves_the_queue() -> None:
    replicas = Replicas(0)
    queue = replicas.queue()
    cancelled, stays = await waiting(
        queue, replicas.ask(queue, "cancelled"), replicas.ask(queue, "stays")
    )

    cancelled.cancel()
    await settle()
    assert len(queue) == 1
    replicas.answer(queue)
    await stays

    assert replicas.order == ["stays"]
    assert queue.outcomes["cancelled"] == 1


@pytest.mark.parametrize("first", ["room", "hang-up"])
async def test_a_request_cancelled_while_it_is_dispatched_frees_its_slot(first: str) -> None:
    replicas = Replicas(0)
    queue = replicas.queue()
    cancelled, after = await waiting(
        queue, replicas.ask(queue, "cancelled"), replicas.ask(queue, "after")
    )

    steps = [lambda: replicas.answer(queue), cancelled.cancel]
    for step in steps if first == "room" else reversed(steps):
        step()
    await settle()

    assert after.done()
    assert replicas.order == ["after"]


async def test_a_full_queue_answers_429_with_whole_seconds_to_wait() -> None:
    replicas = Replicas(0)
    queue = replicas.queue(queue_max=2)
    tasks = await waiting(queue, *(replicas.ask(queue) for _ in range(2)))

    with pytest.raises(GatewayError, match="2 requests wait already; try again in 1 s") as caught:
        await queue.admit(DEFAULT_HINTS, 10)

    assert (status_of(caught.value), caught.value.code) == (429, "rate_limit_exceeded")
    assert caught.value.retry_after_s == 1
    for task in tasks:
        task.cancel()
    await settle()
    assert len(queue) == 0


async def test_a_request_that_times_out_in_the_queue_is_a_429() -> None:
    queue = Replicas(0).queue(timeout_s=0.05)

    with pytest.raises(GatewayError, match=r"no room within 0\.05 s") as caught:
        await queue.admit(DEFAULT_HINTS, 10)

    assert (status_of(caught.value), caught.value.code) == (429, "queue_timeout")
    assert queue.outcomes["timed_out"] == 1


async def test_without_a_ready_replica_requests_are_not_queued() -> None:
    replicas = Replicas(0)
    replicas.up = 0

    assert not suspends(replicas.queue().admit(DEFAULT_HINTS, 10))


async def test_a_retry_is_queued_ahead_of_all_other_requests() -> None:
    replicas = Replicas(0)
    queue = replicas.queue()
    (other,) = await waiting(queue, replicas.ask(queue, "other"))
    back = asyncio.create_task(queue.requeue_retry())
    await settle()

    replicas.answer(queue)
    await back
    replicas.free -= 1
    assert replicas.order == []
    replicas.answer(queue)
    await other


async def test_a_retry_is_not_queued_if_another_replica_has_a_free_slot() -> None:
    assert not suspends(Replicas(1).queue().requeue_retry())


steps = st.lists(st.sampled_from(["ask", "answer", "leave", "run", "urgent", "batch"]), max_size=60)
KINDS = {
    "ask": DEFAULT_HINTS,
    "urgent": RequestHints("b", 0, time.time() + 1000),
    "batch": RequestHints("c", 4),
}


@pytest.mark.parametrize("policy", sorted(POLICIES))
@settings(deadline=None, max_examples=60)
@given(steps=steps, free=st.integers(0, 2))
def test_every_request_ends_once_and_no_slot_is_assigned_twice(
    policy: str, steps: list[str], free: int
) -> None:
    asyncio.run(_run_steps(policy, steps, free))


async def _run_steps(policy: str, steps: list[str], free: int) -> None:
    replicas = Replicas(free)
    queue = replicas.queue(policy, queue_max=5)
    tasks: list[asyncio.Task[None]] = []
    for step in steps:
        match step:
            case "answer" if replicas.free < free:
                replicas.answer(queue)
            case "leave" if tasks:
                tasks[len(tasks) // 2].cancel()
            case "run":
                await settle()
            case "ask" | "urgent" | "batch":
                tasks.append(asyncio.create_task(replicas.ask(queue, step, KINDS[step])))
        assert replicas.free >= 0
    await settle()
    while len(queue):
        replicas.answer(queue)
        await settle()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    refused = sum(isinstance(e, GatewayError) for e in ended)
    left = sum(isinstance(e, asyncio.CancelledError) for e in ended)
    assert len(replicas.order) + refused + left == len(tasks)
    assert refused == queue.outcomes["rejected"]
