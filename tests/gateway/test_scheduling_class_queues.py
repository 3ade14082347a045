"""A policy queue with its heaps dispatches in the order that sorting would give."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.scheduling import POLICIES, QueuedRequest
from sage_gateway.scheduling.class_queues import STALE_MIN, PolicyQueue

ONE_ORDER = ["fifo", "priority", "slo", "cost"]
requests = st.tuples(st.integers(0, 4), st.floats(0.0, 60.0), st.integers(1, 2000))
steps = st.lists(st.sampled_from(["push", "push", "pop", "leave"]), max_size=120)


@pytest.mark.parametrize("name", ONE_ORDER)
@given(steps=steps, drawn=st.lists(requests, min_size=1, max_size=20), seed=st.integers(0, 99))
def test_a_queue_is_in_the_order_of_rank_and_arrival(
    name: str, steps: list[str], drawn: list[tuple[int, float, int]], seed: int
) -> None:
    policy, dice = POLICIES[name](), random.Random(seed)
    queue, waiting = PolicyQueue(policy), list[QueuedRequest]()
    rank = policy.ranks[0]

    for number, step in enumerate(steps):
        if step == "push":
            priority, slack_s, tokens = drawn[number % len(drawn)]
            deadline_s = number + slack_s
            made = QueuedRequest(number, float(number), "t", priority, deadline_s, tokens)
            queue.push(made)
            waiting.append(made)
        elif waiting and step == "leave":
            discarded = dice.choice(waiting)
            assert queue.discard(discarded)
            waiting.remove(discarded)
        elif waiting:
            first = min(waiting, key=lambda t: (rank(t), t.number))
            assert queue.pop(float(number)) is first
            waiting.remove(first)
        assert len(queue) == len(waiting)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_stale_heap_entries_are_bounded_by_the_queued_requests(name: str) -> None:
    queue = PolicyQueue(POLICIES[name]())
    many = [QueuedRequest(n, float(n), f"t{n % 7}", n % 4, n + 30.0, 10) for n in range(5000)]

    for request in many:
        queue.push(request)
    for request in many[:4900]:
        queue.discard(request)

    assert all(len(heap) <= 2 * len(queue) + STALE_MIN for heap in queue._heaps)
    assert sorted(queue.pop(9e3).number for _ in range(len(queue))) == list(range(4900, 5000))
