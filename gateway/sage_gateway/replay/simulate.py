"""The simulation of a trace: real queue and policies, simulated replicas.

Only the engine is simulated: each request takes as long as it took when it was recorded, whatever
else is in flight; a request that was not answered takes the usual time for its tokens. With
``scaling`` the number of replicas is that of :func:`sage_gateway.autoscaling.decide`, without the
jobs' lag, which a trace does not contain.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.autoscaling import ScalingState, decide
from sage_gateway.autoscaling.window import LoadWindow, ModelStatus
from sage_gateway.config.pool_spec import ScalingSpec
from sage_gateway.errors import GatewayError
from sage_gateway.models.load import Load
from sage_gateway.openai.error_table import status_of
from sage_gateway.replay.trace import TraceRow
from sage_gateway.replay.virtual import VirtualLoop
from sage_gateway.scheduling import POLICIES, Queue, QueueClock, QueueLimits, RequestHints

INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class ReplaySetup:
    """The simulated model. A new replica is ready after ``start_s``."""

    policy: str
    replicas: int
    concurrency: int
    bounds: QueueLimits
    scaling: ScalingSpec | None = None
    start_s: float = 5.0


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """The outcome of a request: its arrival, its time in the queue and at the engine.

    ``status`` is 200, or the status of its refusal.
    """

    row: TraceRow
    arrived_s: float
    waited_s: float
    service_s: float
    status: int = 200

    @property
    def in_time(self) -> bool:
        """Whether it was answered before its deadline, if it has one."""
        took_s = self.waited_s + self.service_s
        return self.status == 200 and (self.row.deadline_s is None or took_s <= self.row.deadline_s)


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The outcome of each request, in order, and the wanted number of replicas, each second."""

    outcomes: list[RequestOutcome]
    replicas: list[int]


def run_trace(rows: Sequence[TraceRow], setup: ReplaySetup) -> ReplayResult:
    """The result of a trace with at least one row."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(rows, setup))


class SimulatedReplicas:
    """Replicas of a model with its queue, without engines."""

    def __init__(self, setup: ReplaySetup, pace_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._setup = setup
        self._pace_s = pace_s
        self._loop = loop
        self.wanted = self.ready = setup.replicas
        self.in_flight = 0
        self.load = Load(active_s=0.0)
        self.queue = Queue(
            "trace",
            POLICIES[setup.policy](),
            setup.bounds,
            has_room=lambda taken: self.limit - self.in_flight > taken,
            ready_replicas=lambda: self.ready,
            expects_replica=lambda: True,
            clock=QueueClock(loop.time, loop.time),
        )

    @property
    def limit(self) -> int:
        """How many requests the ready replicas take."""
        return self.ready * self._setup.concurrency

    def scale(self, replicas: int) -> None:
        """Set the number of replicas; surplus ones take no more requests."""
        for _ in range(replicas - self.wanted):
            self._loop.call_later(self._setup.start_s, self._add_ready)
        self.wanted = replicas
        self.ready = min(self.ready, replicas)

    def status(self) -> ModelStatus:
        """As :func:`sage_gateway.autoscaling.loop.model_status`."""
        return ModelStatus(
            replicas=self.wanted,
            ready=self.ready,
            starting=self.wanted - self.ready,
            in_flight=self.in_flight,
            limit=self.limit,
            queue_length=self.queue.foreground_count,
            background=self.queue.background_count,
            oldest_s=self.queue.oldest_wait_s(),
            refused=self.queue.rejections,
        )

    async def serve(self, row: TraceRow) -> RequestOutcome:
        """One request, scheduled as the gateway does it."""
        now = self._loop.time
        arrived_s = now()
        service_s = row.tokens * self._pace_s if row.service_s is None else row.service_s
        hints = RequestHints(
            row.tenant,
            PRIORITIES.index(row.priority),
            math.inf if row.deadline_s is None else arrived_s + row.deadline_s,
            soft_deadline_s=(
                math.inf if row.soft_deadline_s is None else arrived_s + row.soft_deadline_s
            ),
        )
        self.load.record_request(arrived_s, "")
        try:
            request = await self.queue.admit(hints, row.tokens)
        except GatewayError as error:
            return RequestOutcome(row, arrived_s, now() - arrived_s, 0.0, status_of(error))
        dispatched_s = now()
        if request is None or not request.background:
            self.load.waits.add(dispatched_s - arrived_s)
        self.in_flight += 1
        await asyncio.sleep(service_s)
        self.in_flight -= 1
        self.queue.dispatch()
        self.load.record_response({}, now())
        if request is not None:
            self.queue.record_usage(
                request, dispatched_s, {} if row.used is None else {"in": row.used}
            )
        return RequestOutcome(row, arrived_s, dispatched_s - arrived_s, service_s)

    def _add_ready(self) -> None:
        self.ready = min(self.ready + 1, self.wanted)
        self.queue.dispatch()


def pace_s(rows: Sequence[TraceRow]) -> float:
    """The median time per token in the rows, 0 without an answered request."""
    known = [row.service_s / row.tokens for row in rows if row.service_s is not None]
    return median(known) if known else 0.0


async def _run(rows: Sequence[TraceRow], setup: ReplaySetup) -> ReplayResult:
    replicas = SimulatedReplicas(setup, pace_s(rows))
    loop = asyncio.get_running_loop()
    counts = [replicas.wanted]
    scaling = (
        asyncio.create_task(_scale(replicas, setup.scaling, counts)) if setup.scaling else None
    )
    tasks = []
    for row in rows:
        await asyncio.sleep(max(0.0, row.arrived_s - rows[0].arrived_s - loop.time()))
        tasks.append(asyncio.create_task(replicas.serve(row)))
    outcomes = list(await asyncio.gather(*tasks))
    if scaling is not None:
        scaling.cancel()
    return ReplayResult(outcomes, counts)


async def _scale(replicas: SimulatedReplicas, spec: ScalingSpec, counts: list[int]) -> None:
    """As :class:`sage_gateway.autoscaling.loop.Autoscaler`; appends each decision to ``counts``."""
    loop, window, state = asyncio.get_running_loop(), LoadWindow(), ScalingState()
    while True:
        inputs = window.read(replicas.load, replicas.status(), loop.time(), ())
        decision = decide(spec, inputs, state, loop.time())
        state = decision.state
        replicas.scale(decision.replicas)
        counts.append(decision.replicas)
        await asyncio.sleep(INTERVAL_S)
