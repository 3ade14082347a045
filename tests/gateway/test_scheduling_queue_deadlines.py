"""Deadlines in the queue of a model: when they are a 504, and which policies regard them."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_slots import Replicas, suspends, waiting

from sage_gateway.errors import GatewayError
from sage_gateway.openai.error_table import status_of
from sage_gateway.scheduling import QueueClock, QueuedRequest, RequestHints


@pytest.mark.parametrize("policy", ["slo", "adaptive"])
async def test_an_expired_request_is_a_504_even_with_a_free_slot(policy: str) -> None:
    queue = Replicas(9).queue(policy)

    with pytest.raises(GatewayError, match="give it more time") as caught:
        await queue.admit(RequestHints(deadline_s=time.time() - 1), 10)

    assert status_of(caught.value) == 504
    assert queue.outcomes["expired"] == 1


async def test_a_deadline_that_passes_in_the_queue_is_a_504_at_that_time() -> None:
    queue = Replicas(0).queue("slo")

    with pytest.raises(GatewayError) as caught:
        await queue.admit(RequestHints(deadline_s=time.time() + 0.05), 10)

    assert status_of(caught.value) == 504
    assert len(queue) == 0


async def test_fifo_ignores_deadlines() -> None:
    assert not suspends(Replicas(1).queue().admit(RequestHints(deadline_s=0.0), 10))


async def test_slo_refuses_a_request_that_cannot_meet_its_deadline_and_serves_the_next() -> None:
    replicas = Replicas(0)
    queue = replicas.queue("slo")
    queue.record_usage(
        QueuedRequest(0, 0.0, tokens=10), time.monotonic() - 10, {}
    )  # one second per token
    soon, later = (
        RequestHints(deadline_s=time.time() + 4),
        RequestHints(deadline_s=time.time() + 400),
    )
    fine = asyncio.create_task(replicas.ask(queue, "fine", later))

    with pytest.raises(GatewayError, match="or would be before it is answered"):
        await queue.admit(soon, 10)
    replicas.answer(queue)
    await fine

    assert replicas.order == ["fine"]


@pytest.mark.parametrize("policy", ["slo", "adaptive"])
@given(late=st.lists(st.booleans(), min_size=1, max_size=8))
def test_no_request_is_dispatched_after_its_deadline(policy: str, late: list[bool]) -> None:
    served, refused = asyncio.run(_dispatch_late(policy, late))

    assert (served, refused) == (late.count(False), late.count(True))


async def _dispatch_late(policy: str, late: list[bool]) -> tuple[int, int]:
    """Free all slots after the missed deadlines, and before a timer expires them.

    As in a loop that is blocked: its timers are those of the real time, in which nothing is late.
    """
    replicas, now_s = Replicas(0), [1000.0]
    clock = QueueClock(lambda: now_s[0], lambda: now_s[0])
    queue = replicas.queue(policy, clock=clock)
    hints = [RequestHints(deadline_s=now_s[0] + (20.0 if one else 1000.0)) for one in late]
    tasks = await waiting(queue, *(replicas.ask(queue, "", hint) for hint in hints))
    now_s[0] += 20.1
    replicas.free = len(late)
    queue.dispatch()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return len(replicas.order), sum(
        isinstance(e, GatewayError) and status_of(e) == 504 for e in ended
    )
