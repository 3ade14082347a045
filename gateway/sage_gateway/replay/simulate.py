"""Requests of a trace at simulated replicas: the queue and its policies are the gateway's own.

What is simulated is only the engine: each request takes as long as it took when it was recorded,
whatever else is in flight; one that was not answered takes what its tokens took others.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sage_flink.flow.graph import PRIORITIES
from sage_gateway.replay.trace import Row
from sage_gateway.replay.virtual import VirtualLoop
from sage_gateway.scheduling import POLICIES, Bounds, Clock, Queue, Wishes
from sage_gateway.wire import ApiError


@dataclass(frozen=True, slots=True)
class Setup:
    """What the requests meet."""

    policy: str
    replicas: int
    concurrency: int
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: when it arrived, and how long it waited and was served.

    ``status`` is 200, or that of its refusal.
    """

    row: Row
    arrived_s: float
    waited_s: float
    service_s: float
    status: int = 200

    @property
    def in_time(self) -> bool:
        """Whether it was answered, before its deadline where it has one."""
        took_s = self.waited_s + self.service_s
        return self.status == 200 and (self.row.deadline_s is None or took_s <= self.row.deadline_s)


def simulated(rows: Sequence[Row], setup: Setup) -> list[Outcome]:
    """What came of each of ``rows``, in their order; at least one of them."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(rows, setup))


class Engine:
    """Room for so many requests at a time."""

    def __init__(self, setup: Setup, pace_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._free = setup.replicas * setup.concurrency
        self._pace_s = pace_s
        self._now = loop.time
        self.queue = Queue(
            "trace",
            POLICIES[setup.policy](),
            setup.bounds,
            room=lambda taken: self._free > taken,
            ready=lambda: 1,
            clock=Clock(loop.time, loop.time),
        )

    async def ask(self, row: Row) -> Outcome:
        """One request, as :class:`sage_gateway.service.Service` makes it."""
        arrived_s = self._now()
        service_s = row.tokens * self._pace_s if row.service_s is None else row.service_s
        deadline_s = math.inf if row.deadline_s is None else arrived_s + row.deadline_s
        wishes = Wishes(row.tenant, PRIORITIES.index(row.priority), deadline_s)
        try:
            ticket = await self.queue.enter(wishes, row.tokens)
        except ApiError as error:
            return Outcome(row, arrived_s, self._now() - arrived_s, 0.0, error.status)
        begun_s = self._now()
        self._free -= 1
        await asyncio.sleep(service_s)
        self._free += 1
        self.queue.pump()
        if ticket is not None:
            self.queue.settle(ticket, begun_s, {} if row.used is None else {"in": row.used})
        return Outcome(row, arrived_s, begun_s - arrived_s, service_s)


def pace_s(rows: Sequence[Row]) -> float:
    """What a token takes an engine, as far as the rows tell."""
    known = [row.service_s / row.tokens for row in rows if row.service_s is not None]
    return median(known) if known else 0.0


async def _run(rows: Sequence[Row], setup: Setup) -> list[Outcome]:
    engine = Engine(setup, pace_s(rows))
    loop = asyncio.get_running_loop()
    asks = []
    for row in rows:
        await asyncio.sleep(max(0.0, row.arrived_s - rows[0].arrived_s - loop.time()))
        asks.append(asyncio.create_task(engine.ask(row)))
    return list(await asyncio.gather(*asks))
