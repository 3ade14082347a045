"""Several pipelines and users on one pool: latency, deadlines and fairness; simulated.

The workload is that of benchmark B9, and so are the figures; the engines are a clock.
"""

import heapq
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from benchmark_sage.b9_workload import (
    REPLICAS,
    SLOTS,
    SOURCES,
    TOKEN_S,
    USERS,
    TrafficOutcome,
    TrafficSource,
    arrivals,
    figures,
    jain,
    max_min,
)
from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.scheduling import POLICIES, QueuedRequest, slo
from sage_gateway.scheduling.adaptive import BORROWED_TOKENS
from sage_gateway.scheduling.class_queues import BACKGROUND_EVERY, ClassQueues, PolicyQueue

SECONDS, GRACE_S, PROMPT_TOKENS = 8.0, 1.0, 25
ARRIVES, ENDS, GIVES_UP = range(3)


def simulate(name: str, load: float, seed: int = 1) -> dict[str, Any]:
    """The pool under a policy, at ``load`` times its capacity; the estimates of work are exact."""
    policy, end_s = POLICIES[name](), SECONDS + GRACE_S
    queues, free, order = ClassQueues(policy), REPLICAS * SLOTS, count()
    dues, found, requests = arrivals(load, SECONDS, seed), {}, {}
    events = [(due.at_s, next(order), ARRIVES, number) for number, due in enumerate(dues)]
    while events:
        now_s, _, what, number = heapq.heappop(events)
        due = dues[number]
        if now_s > end_s:
            break
        if what == ARRIVES:
            made = requests[number] = request_of(number, due.source, now_s)
            queues.push(made)
            if policy.enforces_deadlines:
                at_s = made.deadline_s - slo.CERTAIN_WORK_SHARE * made.work_s
                heapq.heappush(events, (at_s, next(order), GIVES_UP, number))
        elif what == ENDS:
            free += 1
            found[number] = TrafficOutcome(due, True, now_s - due.at_s)
        elif queues.discard(requests[number]):
            found[number] = TrafficOutcome(due, False, now_s - due.at_s)
        while free and queues:
            request = queues.pop(now_s)
            if policy.enforces_deadlines and slo.is_expired(request, now_s):
                policy.charge(request, -request.tokens)
                found[request.number] = TrafficOutcome(
                    dues[request.number], False, now_s - dues[request.number].at_s
                )
                continue
            free -= 1
            heapq.heappush(events, (now_s + request.work_s, next(order), ENDS, request.number))
    left = {n: TrafficOutcome(due, False, end_s - due.at_s) for n, due in enumerate(dues)}
    return figures([*(left | found).values()], end_s)


def request_of(number: int, source: TrafficSource, now_s: float) -> QueuedRequest:
    """A request of the source that arrives now; its tokens and its work are known."""
    return QueuedRequest(
        number,
        now_s,
        source.name,
        PRIORITIES.index(source.priority),
        now_s + source.deadline_s,
        source.tokens + PROMPT_TOKENS,
        source.tokens * TOKEN_S,
    )


@pytest.mark.parametrize("load", [2, 3])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_adaptive_keeps_users_fast_answers_useful_and_tenants_even(load: float, seed: int) -> None:
    by_arrival, adaptive = (simulate(name, load, seed) for name in ("fifo", "adaptive"))

    assert adaptive["p99_ms"] <= 0.25 * by_arrival["p99_ms"]
    assert adaptive["users_unanswered"] == 0
    assert adaptive["goodput"] >= 0.92
    assert adaptive["jain"] >= 0.95


def test_without_contention_no_policy_adds_latency() -> None:
    alone = [simulate(name, 0.5) for name in POLICIES]

    assert {found["goodput"] for found in alone} == {1.0}
    assert {found["jain"] for found in alone} == {1.0}


def test_an_interactive_request_precedes_the_next_ones_by_fair_shares() -> None:
    queue = PolicyQueue(POLICIES["adaptive"]())
    for number in range(6):
        queue.push(QueuedRequest(number, 0.0, f"pipeline {number % 3}", tokens=100))
    queue.push(QueuedRequest(6, 1.0, "user", priority=0, tokens=100))

    assert queue.pop(1.0).number == 6


def test_a_tenant_with_interactive_requests_only_is_ahead_once_and_then_has_its_share() -> None:
    queue, numbers = PolicyQueue(POLICIES["adaptive"]()), count()
    for _ in range(400):
        for tenant, priority in (("pushy", 0), ("patient", 2)):
            queue.push(QueuedRequest(next(numbers), 0.0, tenant, priority, tokens=100))

    served = [queue.pop(0.0).tenant for _ in range(400)]

    ahead = 2 * BORROWED_TOKENS // 100
    assert served[:ahead] == ["pushy"] * ahead
    assert abs(served[ahead + 1 :].count("pushy") - served[ahead + 1 :].count("patient")) <= 2


def test_an_overdue_request_is_deferred_but_not_without_limit() -> None:
    queues = ClassQueues(POLICIES["slo"]())
    late = QueuedRequest(0, 0.0, deadline_s=10.0, work_s=2.0)
    queues.push(late)
    for number in range(1, 3 * BACKGROUND_EVERY):
        queues.push(QueuedRequest(number, 0.0, deadline_s=60.0, work_s=2.0))

    first = [queues.pop(8.5).number for _ in range(2 * BACKGROUND_EVERY)]

    assert first[0] == 1
    assert 0 in first


def test_an_overdue_request_is_dispatched_if_no_other_is_queued() -> None:
    queues = ClassQueues(POLICIES["adaptive"]())
    late = QueuedRequest(0, 0.0, deadline_s=10.0, work_s=2.0)
    queues.push(late)

    assert queues.pop(8.5) is late
    assert len(queues) == 0


def test_an_overdue_request_can_be_discarded() -> None:
    queues = ClassQueues(POLICIES["slo"]())
    late, timely = QueuedRequest(0, 0.0, deadline_s=1.0, work_s=2.0), QueuedRequest(1, 0.0)
    for request in (late, timely):
        queues.push(request)
    queues.pop(0.5)

    assert queues.discard(late)
    assert not queues.discard(late)
    assert len(queues) == 0


def test_a_policy_without_deadlines_defers_no_request() -> None:
    queues = ClassQueues(POLICIES["fifo"]())
    for number in range(3):
        queues.push(QueuedRequest(number, float(number), deadline_s=0.0, work_s=9.0))

    assert [queues.pop(5.0).number for _ in range(3)] == [0, 1, 2]


def test_fair_shares_are_max_min() -> None:
    assert max_min({"a": 10, "b": 2, "c": 10}, 12) == {"a": 5, "b": 2, "c": 5}
    assert max_min({"a": 1, "b": 2}, 12) == {"a": 1, "b": 2}
    assert jain([]) == 0.0


def test_the_figures_distinguish_late_answers_from_useful_ones() -> None:
    user = next(s for s in SOURCES if s.name in USERS)
    due = replace(arrivals(1, 1.0, 1)[0], source=user)
    outcomes = [
        TrafficOutcome(due, True, 0.5),
        TrafficOutcome(due, True, 1.5),
        TrafficOutcome(due, False, 0.1),
    ]

    found = figures(outcomes, due.at_s + 2.0)

    assert found["goodput"] == round(1 / 3, 4)
    assert found["p99_ms"] == 2000
    assert found["users_unanswered"] == 1
