"""Who goes next: policies over tickets, without a clock and without a gateway."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sage_flink.flow.graph import PRIORITIES
from sage_gateway.requests.request import BACKGROUND
from sage_gateway.scheduling import POLICIES, Ticket, expected_tokens
from sage_gateway.scheduling.class_queues import BACKGROUND_EVERY, Lanes, Line, full
from sage_gateway.scheduling.slo import expired

INTERACTIVE = PRIORITIES.index("interactive")
LOW = PRIORITIES.index("low")
NAMES = sorted(POLICIES)


def order(name: str, *tickets: Ticket, now_s: float = 0.0) -> list[int]:
    """The numbers of ``tickets`` as they are let go when all of them wait."""
    line = Line(POLICIES[name]())
    for ticket in tickets:
        line.push(ticket)
    return [line.pop(now_s).number for _ in tickets]


def ticket(number: int, arrived_s: float | None = None, **more: object) -> Ticket:
    arrived = float(number) if arrived_s is None else arrived_s
    return replace(Ticket(number, arrived), **more)  # type: ignore[arg-type]


def jain(shares: list[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has it all."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))


def test_fifo_lets_go_by_arrival_whatever_the_rest_says() -> None:
    urgent = ticket(2, priority=INTERACTIVE, deadline_s=0.0)

    assert order("fifo", ticket(0), ticket(1, tokens=9000), urgent) == [0, 1, 2]


def test_priority_lets_the_more_urgent_class_go_first() -> None:
    waiting = [ticket(n, 0.0, priority=3 - n) for n in range(4)]

    assert order("priority", *waiting) == [3, 2, 1, 0]


def test_a_low_request_passes_interactive_ones_that_came_fifteen_seconds_later() -> None:
    low = ticket(0, 0.0, priority=LOW)
    sooner, later = (ticket(n, at, priority=INTERACTIVE) for n, at in ((1, 14.0), (2, 16.0)))

    assert order("priority", low, sooner, later) == [1, 0, 2]


def test_slo_lets_the_least_slack_go_first_and_slack_counts_the_work() -> None:
    relaxed = ticket(0, deadline_s=60.0)
    short = ticket(1, deadline_s=20.0)
    long = ticket(2, deadline_s=25.0, work_s=15.0)

    assert order("slo", relaxed, short, long) == [2, 1, 0]


def test_slo_does_not_starve_a_request_without_a_deadline() -> None:
    plain = ticket(0, 0.0)
    dated = [ticket(n, float(n), deadline_s=n + 5.0) for n in range(1, 60)]

    assert order("slo", plain, *dated).index(0) < 40


def test_a_request_is_expired_once_the_engine_could_not_be_halfway_by_its_deadline() -> None:
    asked = ticket(0, deadline_s=10.0, work_s=4.0)

    assert not expired(asked, 7.9)
    assert expired(asked, 8.1)
    assert not expired(ticket(0), 1e9)


def test_cost_lets_the_cheapest_go_first_but_the_dearest_ages() -> None:
    dear = ticket(0, 0.0, tokens=1000)
    cheap = [ticket(n, float(n), tokens=10) for n in (1, 5, 11)]

    assert order("cost", dear, *cheap) == [1, 5, 0, 11]


def test_fair_takes_turns_however_many_one_tenant_sends() -> None:
    many = [ticket(n, 0.0, tenant="loud", tokens=10) for n in range(6)]
    few = [ticket(n, 1.0, tenant="quiet", tokens=10) for n in (6, 7)]

    assert order("fair", *many, *few)[:4] == [0, 6, 1, 7]


def test_fair_counts_tokens_and_not_requests() -> None:
    dear = [ticket(n, 0.0, tenant="dear", tokens=100) for n in range(4)]
    cheap = [ticket(n, 0.0, tenant="cheap", tokens=25) for n in range(4, 20)]

    first = order("fair", *dear, *cheap)[:10]

    assert sum(n < 4 for n in first) == 2


def test_who_was_away_has_saved_nothing_up() -> None:
    line = Line(POLICIES["fair"]())
    for n in range(50):
        line.push(ticket(n, tenant="busy"))
    for _ in range(40):
        line.pop(0.0)

    for n in range(50, 60):
        line.push(ticket(n, tenant="back"))
    owners = Counter("back" if line.pop(0.0).number >= 50 else "busy" for _ in range(10))

    assert owners["back"] in (5, 6)


def test_a_tenant_whose_answers_are_longer_than_expected_pays_for_them() -> None:
    policy = POLICIES["fair"]()
    line = Line(policy)
    longer = ticket(0, tenant="longer", tokens=10)
    line.push(longer)
    line.push(ticket(1, tenant="as-told", tokens=10))
    line.pop(0.0)

    policy.charge(longer, 100)
    line.push(ticket(2, tenant="longer", tokens=10))
    for n in range(3, 8):
        line.push(ticket(n, tenant="as-told", tokens=10))

    assert [line.pop(0.0).number for _ in range(7)][-1] == 2


def test_a_tenant_who_leaves_the_queue_gets_its_tokens_back() -> None:
    line = Line(POLICIES["fair"]())
    gone = ticket(0, tenant="a", tokens=1000)
    line.push(gone)
    line.push(ticket(1, tenant="b", tokens=10))
    line.push(ticket(2, tenant="b", tokens=10))

    line.discard(gone)
    line.push(ticket(3, tenant="a", tokens=10))

    assert line.pop(0.0).number in (1, 3)
    assert line.pop(0.0).number in (1, 3)


def test_adaptive_is_fifo_for_one_tenant_and_fair_for_several() -> None:
    alone = [ticket(n) for n in range(5)]
    several = [ticket(n, tenant="a" if n < 4 else "b") for n in range(6)]

    assert order("adaptive", *alone) == [0, 1, 2, 3, 4]
    assert order("adaptive", *several)[:2] == [0, 4]


def test_adaptive_lets_a_deadline_in_danger_go_first_every_second_turn_at_most() -> None:
    calm = [ticket(n, 0.0, deadline_s=1000.0) for n in range(4)]
    hurried = [ticket(n, 0.0, deadline_s=15.0) for n in (4, 5)]

    assert order("adaptive", *calm, *hurried, now_s=1.0) == [0, 1, 2, 3, 4, 5]
    assert order("adaptive", *calm, *hurried, now_s=10.0) == [4, 0, 5, 1, 2, 3]


def test_background_is_held_back_but_for_every_twentieth_turn() -> None:
    lanes = Lanes(POLICIES["fifo"]())
    for n in range(3):
        lanes.push(ticket(n, priority=BACKGROUND))
    for n in range(3, 60):
        lanes.push(ticket(n))

    turns = [lanes.pop(0.0).background for _ in range(60)]

    assert [n for n, back in enumerate(turns) if back] == [
        BACKGROUND_EVERY - 1,
        2 * BACKGROUND_EVERY - 1,
        59,
    ]


def test_who_lost_a_replica_goes_before_all_others() -> None:
    lanes = Lanes(POLICIES["slo"]())
    lanes.push(ticket(0, deadline_s=0.1))
    lanes.push(ticket(1, returned=True))

    assert lanes.pop(0.0).number == 1


def test_background_fills_half_of_a_queue_at_most() -> None:
    assert full(10, 0, background=False, queue_max=10)
    assert not full(9, 9, background=False, queue_max=10)
    assert full(5, 5, background=True, queue_max=10)
    assert not full(8, 4, background=True, queue_max=10)


def test_a_request_costs_at_least_one_token() -> None:
    assert expected_tokens(0, -5) == 1
    assert expected_tokens(400, 16) == 116


tickets = st.builds(
    lambda gap, tenant, priority, tokens, slack: (gap, tenant, priority, tokens, slack),
    st.floats(0, 2),
    st.sampled_from("abc"),
    st.integers(0, 4),
    st.integers(1, 2000),
    st.floats(0.1, 100) | st.just(math.inf),
)


def numbered(drawn: list[tuple[float, str, int, int, float]]) -> list[Ticket]:
    now, made = 0.0, []
    for number, (gap, tenant, priority, tokens, slack) in enumerate(drawn):
        now += gap
        made.append(Ticket(number, now, tenant, priority, now + slack, tokens))
    return made


@pytest.mark.parametrize("name", NAMES)
@given(drawn=st.lists(tickets, max_size=60), turns=st.lists(st.integers(0, 3), max_size=60))
def test_every_ticket_leaves_once_in_whatever_order_they_come_and_go(
    name: str, drawn: list[tuple[float, str, int, int, float]], turns: list[int]
) -> None:
    lanes = Lanes(POLICIES[name]())
    left: list[int] = []
    pushed: list[Ticket] = []
    steps = [*turns, *[1] * len(drawn)]
    for made, step in zip(numbered(drawn), steps, strict=False):
        lanes.push(made)
        pushed.append(made)
        if step == 0 and lanes.discard(pushed[len(pushed) // 2]):
            left.append(pushed[len(pushed) // 2].number)
        elif step > 1 and lanes:
            left.append(lanes.pop(made.arrived_s).number)
    while lanes:
        left.append(lanes.pop(1e6).number)

    assert sorted(left) == list(range(len(drawn)))
    assert not lanes.discard(ticket(0))


@pytest.mark.parametrize("name", NAMES)
@given(
    victim=tickets,
    rivals=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_none_starves_under_a_load_that_never_lets_up(
    name: str, victim: tuple[float, str, int, int, float], rivals: list[tuple[str, int]]
) -> None:
    """One leaves and one comes, ten a second, all cheap, urgent and of the worst classes for it."""
    lanes = Lanes(POLICIES[name]())
    _, tenant, priority, tokens, slack = victim
    lanes.push(Ticket(0, 0.0, tenant, priority, slack, tokens))
    for n in range(1, 20):
        lanes.push(rival(n, 0.0, rivals))

    for n in range(20, 3000):
        now = n / 10
        lanes.push(rival(n, now, rivals))
        if lanes.pop(now).number == 0:
            return
    pytest.fail(f"{name} let 2980 others go first")


def rival(number: int, now_s: float, kinds: list[tuple[str, int]]) -> Ticket:
    tenant, priority = kinds[number % len(kinds)]
    return Ticket(number, now_s, tenant, priority, now_s + 3.0, tokens=5)


@given(sizes=st.lists(st.integers(10, 500), min_size=2, max_size=6))
def test_fair_shares_of_tokens_have_a_jain_index_of_at_least_nine_tenths(sizes: list[int]) -> None:
    """Each tenant keeps twenty requests of a size of its own in the queue; one leaves at a time."""
    line = Line(POLICIES["fair"]())
    number = 0
    for tenant, size in enumerate(sizes):
        for _ in range(20):
            line.push(ticket(number, tenant=str(tenant), tokens=size))
            number += 1

    served = dict.fromkeys(range(len(sizes)), 0.0)
    while sum(served.values()) < 20 * len(sizes) * max(sizes):
        gone = line.pop(0.0)
        served[int(gone.tenant)] += gone.tokens
        line.push(replace(gone, number=number))
        number += 1

    assert jain(list(served.values())) >= 0.9
