"""A policy queue with its heaps dispatches in the order that sorting would give."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.scheduling import POLICIES, QueuedRequest
from sage_gateway.scheduling.class_queues import STALE_MIN, PolicyQueue

ONE_ORDER = ["fifo", "priority", "slo", "cost"]
tickets = st.tuples(st.integers(0, 4), st.floats(0.0, 60.0), st.integers(1, 2000))
steps = st.lists(st.sampled_from(["push", "push", "pop", "leave"]), max_size=120)


@pytest.mark.parametrize("name", ONE_ORDER)
@given(steps=steps, drawn=st.lists(tickets, min_size=1, max_size=20), seed=st.integers(0, 99))
def test_a_queue_is_in_the_order_of_rank_and_arrival(
    name: str, steps: list[str], drawn: list[tuple[int, float, int]], seed: int
) -> None:
    policy, dice = POLICIES[name](), random.Random(seed)
    line, waiting = PolicyQueue(policy), list[QueuedRequest]()
    rank = policy.ranks[0]

    for number, step in enumerate(steps):
        if step == "push":
            priority, slack_s, tokens = drawn[number % len(drawn)]
            deadline_s = number + slack_s
            made = QueuedRequest(number, float(number), "t", priority, deadline_s, tokens)
            line.push(made)
            waiting.append(made)
        elif waiting and step == "leave":
            gone = dice.choice(waiting)
            assert line.discard(gone)
            waiting.remove(gone)
        elif waiting:
            first = min(waiting, key=lambda t: (rank(t), t.number))
            assert line.pop(float(number)) is first
            waiting.remove(first)
        assert len(line) == len(waiting)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_stale_heap_entries_are_bounded_by_the_queued_requests(name: str) -> None:
    line = PolicyQueue(POLICIES[name]())
    many = [QueuedRequest(n, float(n), f"t{n % 7}", n % 4, n + 30.0, 10) for n in range(5000)]

    for ticket in many:
        line.push(ticket)
    for ticket in many[:4900]:
        line.discard(ticket)

    assert all(len(heap) <= 2 * len(line) + STALE_MIN for heap in line._heaps)
    assert sorted(line.pop(9e3).number for _ in range(len(line))) == list(range(4900, 5000))
