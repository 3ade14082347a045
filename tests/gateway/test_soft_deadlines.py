"""Soft deadlines: a stream that lags catches up before streams in time, and users do not notice.

The queue and its policy are those of the gateway; streams with a bounded number of calls in flight
and users send to simulated replicas, in virtual time.
"""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from sage_gateway.errors import InvalidRequest
from sage_gateway.replay.simulate import ReplaySetup, SimulatedReplicas
from sage_gateway.replay.trace import TraceRow
from sage_gateway.replay.virtual import VirtualLoop
from sage_gateway.requests.request import Request, read_scheduling
from sage_gateway.scheduling import QueueLimits, slo
from sage_gateway.scheduling.queued_request import QueuedRequest

pytestmark = pytest.mark.slow

CALL_S, SLOTS = 0.1, 10  # 100 requests a second
PER_S, STREAMS, USERS_PER_S = 20.0, 3, 20.0
IN_FLIGHT, LAG_S, FRESH_S, RUN_S = 16, 60.0, 20.0, 45.0


@dataclass
class Traffic:
    """Streams of which the first lags, and users; what they measured."""

    soft: bool
    seed: int
    caught_up_s: float = RUN_S
    user_s: list[float] = field(default_factory=list)
    lag_max_s: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        setup = ReplaySetup("slo", 1, SLOTS, QueueLimits(10_000, 600.0))
        self.replicas = SimulatedReplicas(setup, 0.0)
        self.now = asyncio.get_running_loop().time

    async def call(self, deadline_s: float, soft_s: float | None = None) -> float:
        service_s = self.random.uniform(0.5, 1.5) * CALL_S
        deadlines = {"deadline_s": deadline_s, "soft_deadline_s": soft_s}
        row = TraceRow(self.now(), "m", 1, service_s=service_s, **deadlines)
        outcome = await self.replicas.serve(row)
        assert outcome.status == 200
        return outcome.waited_s + outcome.service_s

    async def stream(self, lag_s: float) -> None:
        """One record each 1/PER_S seconds, the first ``lag_s`` ago; IN_FLIGHT calls at most."""
        slots, tasks = asyncio.Semaphore(IN_FLIGHT), []
        for number in range(int((RUN_S + lag_s) * PER_S)):
            event_s = number / PER_S - lag_s
            await asyncio.sleep(max(0.0, event_s - self.now()))
            await slots.acquire()
            if self.now() > RUN_S:
                break
            tasks.append(asyncio.create_task(self.record(event_s, slots, lag_s)))
        await asyncio.gather(*tasks)

    async def record(self, event_s: float, slots: asyncio.Semaphore, lag_s: float) -> None:
        soft_s = event_s + FRESH_S - self.now() if self.soft else None
        await self.call(600.0, soft_s)
        slots.release()
        behind_s = self.now() - event_s
        if lag_s and behind_s <= FRESH_S:
            self.caught_up_s = min(self.caught_up_s, self.now())
        if not lag_s:
            self.lag_max_s = max(self.lag_max_s, behind_s)

    async def users(self) -> None:
        tasks = []
        for _ in range(int(RUN_S * USERS_PER_S)):
            await asyncio.sleep(self.random.expovariate(USERS_PER_S))
            tasks.append(asyncio.create_task(self.call(5.0)))
        self.user_s = await asyncio.gather(*tasks)

    async def run(self) -> "Traffic":
        lags = [LAG_S] + [0.0] * (STREAMS - 1)
        await asyncio.gather(self.users(), *(self.stream(lag_s) for lag_s in lags))
        return self

    @property
    def user_p99_s(self) -> float:
        return sorted(self.user_s)[int(0.99 * len(self.user_s))]


def measure(seed: int, *, soft: bool) -> Traffic:
    async def run() -> Traffic:
        return await Traffic(soft, seed).run()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


@pytest.mark.parametrize("seed", range(5))
def test_a_lagging_stream_catches_up_twice_as_fast_and_users_do_not_notice(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    usual, soft = measure(seed, soft=False), measure(seed, soft=True)

    with capsys.disabled():
        print(
            f"\nanswers fresh after {usual.caught_up_s:.1f} s by arrival, "
            f"{soft.caught_up_s:.1f} s by event time; users' p99 {usual.user_p99_s:.3f} s, "
            f"{soft.user_p99_s:.3f} s; "
            f"largest lag of the other streams {usual.lag_max_s:.1f} s, {soft.lag_max_s:.1f} s"
        )
    assert usual.caught_up_s >= 2 * soft.caught_up_s
    assert soft.user_p99_s <= 1.1 * usual.user_p99_s
    assert soft.lag_max_s <= FRESH_S


def queued(arrived_s: float, **times: float) -> QueuedRequest:
    return QueuedRequest(1, arrived_s, **times)


def test_the_order_is_users_then_lagging_streams_then_those_in_time():
    user = queued(100.0, deadline_s=105.0)
    lagging = queued(100.0, deadline_s=700.0, soft_deadline_s=40.0)
    in_time = queued(100.0, deadline_s=700.0, soft_deadline_s=160.0)
    without = queued(100.0, deadline_s=700.0)

    ranks = [slo.rank(request) for request in (user, lagging, in_time, without)]

    assert ranks == [105.0, 130.0, 190.0, 700.0]


def test_a_missed_soft_deadline_refuses_nothing():
    request = queued(100.0, soft_deadline_s=1.0)
    assert not slo.is_expired(request, 1_000.0)
    assert not slo.is_overdue(request, 1_000.0)


def test_a_soft_deadline_that_is_no_time_is_refused():
    with pytest.raises(InvalidRequest, match="x-sage-soft-deadline-ms must be milliseconds"):
        read_scheduling(Request(), {b"x-sage-soft-deadline-ms": b"soon"})
