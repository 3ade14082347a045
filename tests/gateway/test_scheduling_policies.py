"""Properties of every scheduling policy, without a clock and without a gateway."""

import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from queued_requests import order, request

from sage_gateway.scheduling import POLICIES, QueuedRequest
from sage_gateway.scheduling.class_queues import ClassQueues, PolicyQueue

pytestmark = pytest.mark.slow

NAMES = sorted(POLICIES)


def jain(shares: list[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one tenant has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))


requests = st.builds(
    lambda gap, tenant, priority, tokens, slack: (gap, tenant, priority, tokens, slack),
    st.floats(0, 2),
    st.sampled_from("abc"),
    st.integers(0, 4),
    st.integers(1, 2000),
    st.floats(0.1, 100) | st.just(math.inf),
)


def as_requests(drawn: list[tuple[float, str, int, int, float]]) -> list[QueuedRequest]:
    now, made = 0.0, []
    for number, (gap, tenant, priority, tokens, slack) in enumerate(drawn):
        now += gap
        made.append(QueuedRequest(number, now, tenant, priority, now + slack, tokens))
    return made


@pytest.mark.parametrize("name", NAMES)
@given(drawn=st.lists(requests, max_size=60), turns=st.lists(st.integers(0, 3), max_size=60))
def test_every_request_leaves_once_in_any_order_of_pushes_pops_and_discards(
    name: str, drawn: list[tuple[float, str, int, int, float]], turns: list[int]
) -> None:
    queues = ClassQueues(POLICIES[name]())
    left: list[int] = []
    pushed: list[QueuedRequest] = []
    steps = [*turns, *[1] * len(drawn)]
    for made, step in zip(as_requests(drawn), steps, strict=False):
        queues.push(made)
        pushed.append(made)
        if step == 0 and queues.discard(pushed[len(pushed) // 2]):
            left.append(pushed[len(pushed) // 2].number)
        elif step > 1 and queues:
            left.append(queues.pop(made.arrived_s).number)
    while queues:
        left.append(queues.pop(1e6).number)

    assert sorted(left) == list(range(len(drawn)))
    assert not queues.discard(request(0))


HOUR_S = 3600.0


def various(count: int) -> list[QueuedRequest]:
    """Requests of several tenants and all classes, with and without a deadline."""
    rng = random.Random(7)
    drawn = [
        (
            rng.uniform(0, 2),
            rng.choice("abc"),
            rng.randint(0, 4),
            rng.randint(1, 2000),
            rng.choice((rng.uniform(0.1, 100), math.inf)),
        )
        for _ in range(count)
    ]
    return as_requests(drawn)


@pytest.mark.parametrize("name", NAMES)
def test_a_rank_does_not_read_the_clock(name: str) -> None:
    def ranks() -> list[list[float]]:
        policy = POLICIES[name]()
        return [[rank(request) for request in various(50)] for rank in policy.ranks]

    first = ranks()
    time.sleep(0.002)

    assert ranks() == first


@pytest.mark.parametrize("name", NAMES)
def test_the_order_is_the_same_when_all_requests_arrive_an_hour_later(name: str) -> None:
    early = various(200)
    late = [
        replace(
            one,
            arrived_s=one.arrived_s + HOUR_S,
            deadline_s=one.deadline_s + HOUR_S,
            soft_deadline_s=one.soft_deadline_s + HOUR_S,
        )
        for one in early
    ]
    now_s = early[-1].arrived_s

    assert order(name, *early, now_s=now_s) == order(name, *late, now_s=now_s + HOUR_S)


@pytest.mark.parametrize("name", NAMES)
@given(
    victim=requests,
    rivals=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_no_request_starves_under_constant_load(
    name: str, victim: tuple[float, str, int, int, float], rivals: list[tuple[str, int]]
) -> None:
    """Ten requests per second arrive and are dispatched: cheap, urgent, and of the lowest class."""
    queues = ClassQueues(POLICIES[name]())
    _, tenant, priority, tokens, slack = victim
    queues.push(QueuedRequest(0, 0.0, tenant, priority, slack, tokens))
    for n in range(1, 20):
        queues.push(rival(n, 0.0, rivals))

    for n in range(20, 3000):
        now = n / 10
        queues.push(rival(n, now, rivals))
        if queues.pop(now).number == 0:
            return
    pytest.fail(f"{name} let 2980 others go first")


def rival(number: int, now_s: float, kinds: list[tuple[str, int]]) -> QueuedRequest:
    tenant, priority = kinds[number % len(kinds)]
    return QueuedRequest(number, now_s, tenant, priority, now_s + 3.0, tokens=5)


@given(sizes=st.lists(st.integers(10, 500), min_size=2, max_size=6))
def test_fair_shares_of_tokens_have_a_jain_index_of_at_least_nine_tenths(sizes: list[int]) -> None:
    """Each tenant keeps twenty requests of a size of its own in the queue; one leaves at a time."""
    queue = PolicyQueue(POLICIES["fair"]())
    number = 0
    for tenant, size in enumerate(sizes):
        for _ in range(20):
            queue.push(request(number, tenant=str(tenant), tokens=size))
            number += 1

    served = dict.fromkeys(range(len(sizes)), 0.0)
    while sum(served.values()) < 20 * len(sizes) * max(sizes):
        dispatched = queue.pop(0.0)
        served[int(dispatched.tenant)] += dispatched.tokens
        queue.push(replace(dispatched, number=number))
        number += 1

    assert jain(list(served.values())) >= 0.9
