"""The autoscaler: one task that reads the inputs, decides, logs, and scales the pool.

A request for a model at zero wakes it immediately; the request stays queued until a replica is
ready. Slow dependencies (Flink, the time-series store) have a task or thread of their own: this
task never waits for them.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from prometheus_client import CollectorRegistry, Counter

from sage_gateway.autoscaling.decide import Cause, Decision, ScalingState, decide, reject
from sage_gateway.autoscaling.decision_log import DecisionLog, point
from sage_gateway.autoscaling.streams import JobStatus
from sage_gateway.autoscaling.window import LoadWindow, ModelStatus
from sage_gateway.errors import GatewayError
from sage_gateway.models.model import Model
from sage_gateway.replicas.lifecycle import ReplicaState
from sage_gateway.storage.points import Points

log = logging.getLogger("sage.gateway")

INTERVAL_S = 1.0
JOBS_EVERY_S = 5.0
#: The last known status of jobs is used for this long ...
JOBS_STALE_S = 30.0
#: ... and a job that sent a request to a model is one of its callers for this long.
CALLER_S = 600.0
#: What a job source raises that is unavailable, or is not Flink.
UNREADABLE = (
    *(aiohttp.ClientError, OSError),
    *(ValueError, LookupError, TypeError, AttributeError),
)
LOGGED_CAUSES = frozenset({Cause.BUDGET, Cause.NOT_THE_POOL, Cause.AT_MAX})


class Scaler(Protocol):
    """The owner of the replicas."""

    def scale(self, model_name: str, replicas: int) -> None:
        """Set the wanted number, 0 to 64; surplus replicas drain without failing a request.

        Raises:
            GatewayError: there is no room for them.
        """
        ...


class JobSource(Protocol):
    """A source of the status of running jobs."""

    async def read(self, names: frozenset[str], now_s: float) -> dict[str, JobStatus]:
        """The status of the running jobs with these names."""
        ...


@dataclass(slots=True, eq=False)
class ScaledModel:
    """The autoscaling state of one model. ``rejected_s``: when a change of it was rejected."""

    model: Model
    wake: asyncio.Event
    window: LoadWindow = field(default_factory=LoadWindow)
    state: ScalingState = field(default_factory=ScalingState)
    rejected_s: float = -math.inf

    def decide(self, jobs: list[JobStatus], now_s: float) -> Decision:
        """The decision at ``now_s``."""
        spec, model = self.model.spec.scaling, self.model
        assert spec is not None
        inputs = self.window.read(model.load, model_status(model), now_s, jobs)
        return decide(spec, inputs, self.state, now_s)

    def apply(self, decision: Decision, scaler: Scaler) -> Decision:
        """Apply a decision; returns it, or why the pool rejected it."""
        if decision.action != "hold" and not decision.dry_run:
            try:
                scaler.scale(self.model.name, decision.replicas)
            except GatewayError as error:
                self.rejected_s = decision.state.changed_s
                decision = reject(decision, str(error))
        self.state = decision.state
        return decision

    def expects_replica(self) -> bool:
        """Whether a replica of a model without ready ones is starting; at zero, start one."""
        spec, now = self.model.spec.scaling, model_status(self.model)
        if spec is None or now.replicas:
            return spec is not None and now.starting > 0
        rejected = time.monotonic() - self.rejected_s < spec.up_cooldown_s
        if spec.dry_run or rejected:
            return False
        self.wake.set()
        return True


class Autoscaler:
    """Scales the models that have ``scaling``; ``open`` on the loop that serves."""

    def __init__(
        self,
        models: Mapping[str, Model],
        scaler: Scaler,
        points: Points,
        jobs: JobSource,
        registry: CollectorRegistry,
        *,
        interval_s: float = INTERVAL_S,
        jobs_every_s: float = JOBS_EVERY_S,
    ) -> None:
        self.decisions = DecisionLog()
        self._models = models
        self._scaler = scaler
        self._points = points
        self._job_source = jobs
        self._interval_s = interval_s
        self._jobs_every_s = jobs_every_s
        self._count = Counter(
            "sage_gateway_scaling_decisions",
            "Decisions about the number of replicas",
            ["model", "action", "cause"],
            registry=registry,
        )
        self._scaled: dict[str, ScaledModel] = {}
        self._jobs: dict[str, JobStatus] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start the tasks."""
        for name, work in {"scaling": self._run(), "jobs": self._read_jobs()}.items():
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(_log_failure)
            self._tasks.append(task)

    async def close(self) -> None:
        """Stop the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for model in list(self._models.values()):
                if model.spec.scaling is not None:
                    self._scale(model, time.monotonic())
                    await asyncio.sleep(
                        0
                    )  # requests have precedence, however many models there are
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            self._wake.clear()

    def _scale(self, model: Model, now_s: float) -> None:
        scaled = self._scaled.get(model.name)
        if scaled is None or scaled.model is not model:  # new, or another of that name
            scaled = self._scaled[model.name] = ScaledModel(model, self._wake)
            model.scale_up = scaled
        callers = [self._jobs[name] for name in _callers(model, now_s) if name in self._jobs]
        decision = scaled.apply(scaled.decide(callers, now_s), self._scaler)
        self._count.labels(model.name, decision.action, decision.cause).inc()
        at_s = time.time()
        self._points.add([point(model.name, decision, at_s)])
        if self.decisions.add(model.name, decision, at_s) and _is_logged(decision):
            log.info("%s: %s", model.name, _log_line(decision))

    async def _read_jobs(self) -> None:
        read_s, unavailable = time.monotonic(), False
        while True:
            await asyncio.sleep(self._jobs_every_s)
            now_s = time.monotonic()
            scaled = [model for model in self._models.values() if model.spec.scaling]
            names = frozenset(name for model in scaled for name in _callers(model, now_s))
            try:
                self._jobs = await self._job_source.read(names, now_s) if names else {}
                read_s, unavailable = now_s, False
            except UNREADABLE as error:
                if not unavailable:
                    log.warning("scaling without the jobs' lag and load: %r", error)
                unavailable = True
                if now_s - read_s > JOBS_STALE_S:
                    self._jobs = {}


def model_status(model: Model) -> ModelStatus:
    """The replicas and the queue of a model, now."""
    states = [slot.replica.state for slot in model.replica_slots]
    ready = [slot for slot in model.replica_slots if slot.replica.state is ReplicaState.READY]
    return ModelStatus(
        replicas=model.wanted,
        ready=len(ready),
        starting=states.count(ReplicaState.STARTING),
        in_flight=sum(slot.in_flight for slot in model.replica_slots),
        limit=sum(slot.concurrency for slot in ready),
        queue_length=model.queue.foreground_count,
        background=model.queue.background_count,
        oldest_s=model.queue.oldest_wait_s(),
        refused=model.queue.rejections,
    )


def _callers(model: Model, now_s: float) -> list[str]:
    """The jobs that sent a request to the model within ``CALLER_S``; others are forgotten."""
    jobs = model.load.jobs
    for name in [one for one, at_s in jobs.items() if now_s - at_s > CALLER_S]:
        del jobs[name]
    return list(jobs)


def _is_logged(decision: Decision) -> bool:
    return decision.action != "hold" or decision.cause in LOGGED_CAUSES


def _log_line(decision: Decision) -> str:
    dry = "dry run: " * decision.dry_run
    return f"{dry}{decision.action}, {decision.replicas} ({decision.cause}): {decision.words}"


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("%s: autoscaling has stopped", task.get_name(), exc_info=error)
