"""The scheduling policies, without a clock and without a gateway."""

import math
import random
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.requests.request import BACKGROUND
from sage_gateway.scheduling import (
    POLICIES,
    QueuedRequest,
    expected_tokens,
)
from sage_gateway.scheduling.class_queues import BACKGROUND_EVERY, ClassQueues, PolicyQueue, is_full
from sage_gateway.scheduling.slo import is_expired

INTERACTIVE = PRIORITIES.index("interactive")
LOW = PRIORITIES.index("low")
NAMES = sorted(POLICIES)


def order(name: str, *requests: QueuedRequest, now_s: float = 0.0) -> list[int]:
    """The numbers of ``requests`` in the order of dispatch when all of them are queued."""
    queue = PolicyQueue(POLICIES[name]())
    for request in requests:
        queue.push(request)
    return [queue.pop(now_s).number for _ in requests]


def request(number: int, arrived_s: float | None = None, **more: object) -> QueuedRequest:
    arrived = float(number) if arrived_s is None else arrived_s
    return replace(QueuedRequest(number, arrived), **more)  # type: ignore[arg-type]


def jain(shares: list[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one tenant has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))


def test_fifo_dispatches_in_the_order_of_arrival_only() -> None:
    urgent = request(2, priority=INTERACTIVE, deadline_s=0.0)

    assert order("fifo", request(0), request(1, tokens=9000), urgent) == [0, 1, 2]


def test_priority_dispatches_the_more_urgent_class_first() -> None:
    waiting = [request(n, 0.0, priority=3 - n) for n in range(4)]

    assert order("priority", *waiting) == [3, 2, 1, 0]


def test_a_low_request_precedes_interactive_ones_that_arrived_fifteen_seconds_later() -> None:
    low = request(0, 0.0, priority=LOW)
    sooner, later = (request(n, at, priority=INTERACTIVE) for n, at in ((1, 14.0), (2, 16.0)))

    assert order("priority", low, sooner, later) == [1, 0, 2]


def test_slo_dispatches_the_least_slack_first_and_slack_counts_the_work() -> None:
    relaxed = request(0, deadline_s=60.0)
    short = request(1, deadline_s=20.0)
    long = request(2, deadline_s=25.0, work_s=15.0)

    assert order("slo", relaxed, short, long) == [2, 1, 0]


def test_slo_does_not_starve_a_request_without_a_deadline() -> None:
    plain = request(0, 0.0)
    dated = [request(n, float(n), deadline_s=n + 5.0) for n in range(1, 60)]

    assert order("slo", plain, *dated).index(0) < 40


def test_a_request_is_expired_once_the_engine_could_not_be_halfway_by_its_deadline() -> None:
    asked = request(0, deadline_s=10.0, work_s=4.0)

    assert not is_expired(asked, 7.9)
    assert is_expired(asked, 8.1)
    assert not is_expired(request(0), 1e9)


def test_cost_dispatches_the_cheapest_first_but_expensive_requests_age() -> None:
    dear = request(0, 0.0, tokens=1000)
    cheap = [request(n, float(n), tokens=10) for n in (1, 5, 11)]

    assert order("cost", dear, *cheap) == [1, 5, 0, 11]


def test_fair_alternates_between_tenants_however_many_requests_one_sends() -> None:
    many = [request(n, 0.0, tenant="loud", tokens=10) for n in range(6)]
    few = [request(n, 1.0, tenant="quiet", tokens=10) for n in (6, 7)]

    assert order("fair", *many, *few)[:4] == [0, 6, 1, 7]


def test_fair_counts_tokens_and_not_requests() -> None:
    dear = [request(n, 0.0, tenant="dear", tokens=100) for n in range(4)]
    cheap = [request(n, 0.0, tenant="cheap", tokens=25) for n in range(4, 20)]

    first = order("fair", *dear, *cheap)[:10]

    assert sum(n < 4 for n in first) == 2


def test_an_idle_tenant_has_not_saved_tokens_up() -> None:
    queue = PolicyQueue(POLICIES["fair"]())
    for n in range(50):
        queue.push(request(n, tenant="busy"))
    for _ in range(40):
        queue.pop(0.0)

    for n in range(50, 60):
        queue.push(request(n, tenant="back"))
    owners = Counter("back" if queue.pop(0.0).number >= 50 else "busy" for _ in range(10))

    assert owners["back"] in (5, 6)


def test_a_tenant_is_charged_for_answers_longer_than_expected() -> None:
    policy = POLICIES["fair"]()
    queue = PolicyQueue(policy)
    longer = request(0, tenant="longer", tokens=10)
    queue.push(longer)
    queue.push(request(1, tenant="as-expected", tokens=10))
    queue.pop(0.0)

    policy.charge(longer, 100)
    queue.push(request(2, tenant="longer", tokens=10))
    for n in range(3, 8):
        queue.push(request(n, tenant="as-expected", tokens=10))

    assert [queue.pop(0.0).number for _ in range(7)][-1] == 2


def test_a_discarded_request_is_not_charged() -> None:
    queue = PolicyQueue(POLICIES["fair"]())
    discarded = request(0, tenant="a", tokens=1000)
    queue.push(discarded)
    queue.push(request(1, tenant="b", tokens=10))
    queue.push(request(2, tenant="b", tokens=10))

    queue.discard(discarded)
    queue.push(request(3, tenant="a", tokens=10))

    assert queue.pop(0.0).number in (1, 3)
    assert queue.pop(0.0).number in (1, 3)


def test_adaptive_is_fifo_for_one_tenant_and_fair_for_several() -> None:
    alone = [request(n) for n in range(5)]
    several = [request(n, tenant="a" if n < 4 else "b") for n in range(6)]

    assert order("adaptive", *alone) == [0, 1, 2, 3, 4]
    assert order("adaptive", *several)[:2] == [0, 4]


def test_adaptive_dispatches_a_deadline_in_danger_first_every_second_time_at_most() -> None:
    calm = [request(n, 0.0, deadline_s=1000.0) for n in range(4)]
    hurried = [request(n, 0.0, deadline_s=15.0) for n in (4, 5)]

    assert order("adaptive", *calm, *hurried, now_s=1.0) == [0, 1, 2, 3, 4, 5]
    assert order("adaptive", *calm, *hurried, now_s=10.0) == [4, 0, 5, 1, 2, 3]


def test_background_is_deferred_except_for_every_twentieth_dispatch() -> None:
    queues = ClassQueues(POLICIES["fifo"]())
    for n in range(3):
        queues.push(request(n, priority=BACKGROUND))
    for n in range(3, 60):
        queues.push(request(n))

    turns = [queues.pop(0.0).background for _ in range(60)]

    assert [n for n, back in enumerate(turns) if back] == [
        BACKGROUND_EVERY - 1,
        2 * BACKGROUND_EVERY - 1,
        59,
    ]


def test_a_retry_precedes_all_other_requests() -> None:
    queues = ClassQueues(POLICIES["slo"]())
    queues.push(request(0, deadline_s=0.1))
    queues.push(request(1, retry=True))

    assert queues.pop(0.0).number == 1


def test_background_fills_at_most_half_of_a_queue() -> None:
    assert is_full(10, 0, background=False, queue_max=10)
    assert not is_full(9, 9, background=False, queue_max=10)
    assert is_full(5, 5, background=True, queue_max=10)
    assert not is_full(8, 4, background=True, queue_max=10)


def test_a_request_costs_at_least_one_token() -> None:
    assert expected_tokens(0, -5) == 1
    assert expected_tokens(400, 16) == 116


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
