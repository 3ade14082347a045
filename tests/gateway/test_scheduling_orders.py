"""The order of dispatch of each scheduling policy, without a clock and without a gateway."""

from collections import Counter

from queued_requests import order, request

from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.requests.request import BACKGROUND
from sage_gateway.scheduling import POLICIES, expected_tokens
from sage_gateway.scheduling.class_queues import BACKGROUND_EVERY, ClassQueues, PolicyQueue, is_full
from sage_gateway.scheduling.slo import is_expired

INTERACTIVE = PRIORITIES.index("interactive")
LOW = PRIORITIES.index("low")


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


def test_cost_lets_no_request_wait_for_its_size_longer_than_a_queue_keeps_it() -> None:
    huge = request(0, 0.0, tokens=100_000)
    small = [request(n, float(n), tokens=1) for n in range(1, 60)]

    assert order("cost", huge, *small).index(0) < 30


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
