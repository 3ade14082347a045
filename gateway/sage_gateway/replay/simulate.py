"""Requests of a trace at simulated replicas: the queue and its policies are the gateway's own.

What is simulated is only the engine: each request takes as long as it took when it was recorded,
whatever else is in flight; one that was not answered takes what its tokens took others. With
``scaling`` the replicas are those that :func:`autoscaling.decide` wants, without a job's
lag, which no trace has.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.autoscaling import State, decide
from sage_gateway.autoscaling.window import Standing, Window
from sage_gateway.config.pool_spec import ScalingSpec
from sage_gateway.errors import GatewayError
from sage_gateway.models.load import Load
from sage_gateway.openai.error_table import status_of
from sage_gateway.replay.trace import Row
from sage_gateway.replay.virtual import VirtualLoop
from sage_gateway.scheduling import POLICIES, Bounds, Clock, Queue, Wishes

TURN_S = 1.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What the requests meet. A new replica is ready after ``start_s``."""

    policy: str
    replicas: int
    concurrency: int
    bounds: Bounds
    scaling: ScalingSpec | None = None
    start_s: float = 5.0


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


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of each request, in their order; and how many replicas were wanted, each second."""

    outcomes: list[Outcome]
    replicas: list[int]


def simulated(rows: Sequence[Row], setup: Setup) -> Replay:
    """What comes of ``rows``, of which there is one at least."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(rows, setup))


class Engine:
    """Replicas with room for so many requests at a time, each."""

    def __init__(self, setup: Setup, pace_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._setup = setup
        self._pace_s = pace_s
        self._loop = loop
        self.wanted = self.ready = setup.replicas
        self.in_flight = 0
        self.load = Load(asked_s=0.0)
        self.queue = Queue(
            "trace",
            POLICIES[setup.policy](),
            setup.bounds,
            room=lambda taken: self.limit - self.in_flight > taken,
            ready=lambda: self.ready,
            clock=Clock(loop.time, loop.time),
        )
        self.queue.comes = lambda: True

    @property
    def limit(self) -> int:
        """How many requests the ready replicas take."""
        return self.ready * self._setup.concurrency

    def scale(self, replicas: int) -> None:
        """Have so many; those in surplus take no more."""
        for _ in range(replicas - self.wanted):
            self._loop.call_later(self._setup.start_s, self._come)
        self.wanted = replicas
        self.ready = min(self.ready, replicas)

    def standing(self) -> Standing:
        """As :func:`sage_gateway.autoscaling.loop.standing`."""
        return Standing(
            replicas=self.wanted,
            ready=self.ready,
            starting=self.wanted - self.ready,
            in_flight=self.in_flight,
            limit=self.limit,
            queue_length=len(self.queue) - self.queue.background,
            background=self.queue.background,
            oldest_s=self.queue.oldest_s(),
            refused=self.queue.turned_away,
        )

    async def ask(self, row: Row) -> Outcome:
        """One request, as :class:`sage_gateway.inference.service.Service` makes it."""
        now = self._loop.time
        arrived_s = now()
        service_s = row.tokens * self._pace_s if row.service_s is None else row.service_s
        deadline_s = math.inf if row.deadline_s is None else arrived_s + row.deadline_s
        wishes = Wishes(row.tenant, PRIORITIES.index(row.priority), deadline_s)
        self.load.asked(arrived_s, "")
        try:
            ticket = await self.queue.enter(wishes, row.tokens)
        except GatewayError as error:
            return Outcome(row, arrived_s, now() - arrived_s, 0.0, status_of(error))
        begun_s = now()
        if ticket is None or not ticket.background:
            self.load.waits.add(begun_s - arrived_s)
        self.in_flight += 1
        await asyncio.sleep(service_s)
        self.in_flight -= 1
        self.queue.pump()
        self.load.ended({}, now())
        if ticket is not None:
            self.queue.settle(ticket, begun_s, {} if row.used is None else {"in": row.used})
        return Outcome(row, arrived_s, begun_s - arrived_s, service_s)

    def _come(self) -> None:
        self.ready = min(self.ready + 1, self.wanted)
        self.queue.pump()


def pace_s(rows: Sequence[Row]) -> float:
    """What a token takes an engine, as far as the rows tell."""
    known = [row.service_s / row.tokens for row in rows if row.service_s is not None]
    return median(known) if known else 0.0


async def _run(rows: Sequence[Row], setup: Setup) -> Replay:
    engine = Engine(setup, pace_s(rows))
    loop = asyncio.get_running_loop()
    counts = [engine.wanted]
    scaling = asyncio.create_task(_scale(engine, setup.scaling, counts)) if setup.scaling else None
    asks = []
    for row in rows:
        await asyncio.sleep(max(0.0, row.arrived_s - rows[0].arrived_s - loop.time()))
        asks.append(asyncio.create_task(engine.ask(row)))
    outcomes = list(await asyncio.gather(*asks))
    if scaling is not None:
        scaling.cancel()
    return Replay(outcomes, counts)


async def _scale(engine: Engine, spec: ScalingSpec, counts: list[int]) -> None:
    """As :class:`autoscaling.loop.Autoscaler`; ``counts``: the replicas at each turn."""
    loop, window, state = asyncio.get_running_loop(), Window(), State()
    while True:
        inputs = window.read(engine.load, engine.standing(), loop.time(), ())
        decision = decide(spec, inputs, state, loop.time())
        state = decision.state
        engine.scale(decision.replicas)
        counts.append(decision.replicas)
        await asyncio.sleep(TURN_S)
