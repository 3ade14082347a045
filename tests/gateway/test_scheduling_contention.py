"""Several pipelines and users on one pool: who is served, in time, and how fairly; simulated.

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
    RequestOutcome,
    arrivals,
    figures,
    jain,
    max_min,
)
from sage_flink.flow.graph import PRIORITIES
from sage_gateway.scheduling import POLICIES, Ticket, slo
from sage_gateway.scheduling.adaptive import BORROWED_TOKENS
from sage_gateway.scheduling.class_queues import BACKGROUND_EVERY, Lanes, Line

SECONDS, GRACE_S, PROMPT_TOKENS = 8.0, 1.0, 25
ARRIVES, ENDS, GIVES_UP = range(3)


def simulated(name: str, load: float, seed: int = 1) -> dict[str, Any]:
    """The pool under a policy, at ``load`` times what it can do; the guess of the work is right."""
    policy, end_s = POLICIES[name](), SECONDS + GRACE_S
    lanes, free, order = Lanes(policy), REPLICAS * SLOTS, count()
    dues, found, tickets = arrivals(load, SECONDS, seed), {}, {}
    events = [(due.at_s, next(order), ARRIVES, number) for number, due in enumerate(dues)]
    while events:
        now_s, _, what, number = heapq.heappop(events)
        due = dues[number]
        if now_s > end_s:
            break
        if what == ARRIVES:
            source = due.source
            made = tickets[number] = Ticket(
                number,
                now_s,
                source.name,
                PRIORITIES.index(source.priority),
                now_s + source.deadline_s,
                source.tokens + PROMPT_TOKENS,
                source.tokens * TOKEN_S,
            )
            lanes.push(made)
            if policy.expires:
                at_s = made.deadline_s - slo.SURE * made.work_s
                heapq.heappush(events, (at_s, next(order), GIVES_UP, number))
        elif what == ENDS:
            free += 1
            found[number] = RequestOutcome(due, True, now_s - due.at_s)
        elif lanes.discard(tickets[number]):
            found[number] = RequestOutcome(due, False, now_s - due.at_s)
        while free and lanes:
            ticket = lanes.pop(now_s)
            if policy.expires and slo.expired(ticket, now_s):
                policy.charge(ticket, -ticket.tokens)
                found[ticket.number] = RequestOutcome(
                    dues[ticket.number], False, now_s - dues[ticket.number].at_s
                )
                continue
            free -= 1
            heapq.heappush(events, (now_s + ticket.work_s, next(order), ENDS, ticket.number))
    left = {n: RequestOutcome(due, False, end_s - due.at_s) for n, due in enumerate(dues)}
    return figures([*(left | found).values()], end_s)


@pytest.mark.parametrize("load", [2, 3])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_adaptive_keeps_users_fast_answers_useful_and_tenants_even(load: float, seed: int) -> None:
    by_arrival, adaptive = (simulated(name, load, seed) for name in ("fifo", "adaptive"))

    assert adaptive["p99_ms"] <= 0.25 * by_arrival["p99_ms"]
    assert adaptive["users_unanswered"] == 0
    assert adaptive["goodput"] >= 0.92
    assert adaptive["jain"] >= 0.95


def test_without_contention_no_policy_costs_anything() -> None:
    alone = [simulated(name, 0.5) for name in POLICIES]

    assert {found["goodput"] for found in alone} == {1.0}
    assert {found["jain"] for found in alone} == {1.0}


def test_an_interactive_request_goes_before_those_whose_turn_it_would_be() -> None:
    line = Line(POLICIES["adaptive"]())
    for number in range(6):
        line.push(Ticket(number, 0.0, f"pipeline {number % 3}", tokens=100))
    line.push(Ticket(6, 1.0, "user", priority=0, tokens=100))

    assert line.pop(1.0).number == 6


def test_who_calls_everything_interactive_is_ahead_once_and_then_has_its_share() -> None:
    line, numbers = Line(POLICIES["adaptive"]()), count()
    for _ in range(400):
        for tenant, priority in (("pushy", 0), ("patient", 2)):
            line.push(Ticket(next(numbers), 0.0, tenant, priority, tokens=100))

    served = [line.pop(0.0).tenant for _ in range(400)]

    ahead = 2 * BORROWED_TOKENS // 100
    assert served[:ahead] == ["pushy"] * ahead
    assert abs(served[ahead + 1 :].count("pushy") - served[ahead + 1 :].count("patient")) <= 2


def test_who_would_be_late_is_held_back_but_not_for_ever() -> None:
    lanes = Lanes(POLICIES["slo"]())
    late = Ticket(0, 0.0, deadline_s=10.0, work_s=2.0)
    lanes.push(late)
    for number in range(1, 3 * BACKGROUND_EVERY):
        lanes.push(Ticket(number, 0.0, deadline_s=60.0, work_s=2.0))

    first = [lanes.pop(8.5).number for _ in range(2 * BACKGROUND_EVERY)]

    assert first[0] == 1
    assert 0 in first


def test_who_would_be_late_is_let_go_where_nobody_else_waits() -> None:
    lanes = Lanes(POLICIES["adaptive"]())
    late = Ticket(0, 0.0, deadline_s=10.0, work_s=2.0)
    lanes.push(late)

    assert lanes.pop(8.5) is late
    assert len(lanes) == 0


def test_a_late_one_that_leaves_is_gone() -> None:
    lanes = Lanes(POLICIES["slo"]())
    late, timely = Ticket(0, 0.0, deadline_s=1.0, work_s=2.0), Ticket(1, 0.0)
    for ticket in (late, timely):
        lanes.push(ticket)
    lanes.pop(0.5)

    assert lanes.discard(late)
    assert not lanes.discard(late)
    assert len(lanes) == 0


def test_a_policy_that_does_not_mind_deadlines_holds_nobody_back() -> None:
    lanes = Lanes(POLICIES["fifo"]())
    for number in range(3):
        lanes.push(Ticket(number, float(number), deadline_s=0.0, work_s=9.0))

    assert [lanes.pop(5.0).number for _ in range(3)] == [0, 1, 2]


def test_fair_shares_are_max_min() -> None:
    assert max_min({"a": 10, "b": 2, "c": 10}, 12) == {"a": 5, "b": 2, "c": 5}
    assert max_min({"a": 1, "b": 2}, 12) == {"a": 1, "b": 2}
    assert jain([]) == 0.0


def test_the_figures_tell_late_answers_from_useful_ones() -> None:
    user = next(s for s in SOURCES if s.name in USERS)
    due = replace(arrivals(1, 1.0, 1)[0], source=user)
    outcomes = [
        RequestOutcome(due, True, 0.5),
        RequestOutcome(due, True, 1.5),
        RequestOutcome(due, False, 0.1),
    ]

    found = figures(outcomes, due.at_s + 2.0)

    assert found["goodput"] == round(1 / 3, 4)
    assert found["p99_ms"] == 2000
    assert found["users_unanswered"] == 1
