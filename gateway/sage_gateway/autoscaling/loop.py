"""The one task that scales: it collects, decides, tells, and calls whoever owns the replicas.

A request for a model at zero wakes it at once; it waits in the queue meanwhile. What is slow or
away (Flink, the time-series store) has a task or thread of its own: nothing here waits for it.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import aiohttp
from prometheus_client import CollectorRegistry, Counter

from sage_gateway.autoscaling.decide import Cause, Decision, State, decide, refused
from sage_gateway.autoscaling.decision_log import Journal, point
from sage_gateway.autoscaling.streams import Job
from sage_gateway.autoscaling.window import Standing, Window
from sage_gateway.errors import GatewayError
from sage_gateway.models.model import Model
from sage_gateway.replicas.lifecycle import State as Life
from sage_gateway.storage.points import Points

log = logging.getLogger("sage.gateway")

INTERVAL_S = 1.0
JOBS_EVERY_S = 5.0
#: What was last seen of jobs counts for so long ...
JOBS_STALE_S = 30.0
#: ... and a job that asked a model is one of its callers for so long.
CALLER_S = 600.0
#: What a source of jobs raises that is away, or is none.
UNREADABLE = (
    *(aiohttp.ClientError, OSError),
    *(ValueError, LookupError, TypeError, AttributeError),
)
WORTH_A_LINE = frozenset({Cause.BUDGET, Cause.NOT_THE_POOL, Cause.AT_MAX})


class Scaler(Protocol):
    """Who owns the replicas."""

    def scale(self, model_name: str, replicas: int) -> None:
        """Have so many, 0 to 64, from now on; those in surplus drain, and fail no request.

        Raises:
            GatewayError: there is no room for them.
        """
        ...


class Jobs(Protocol):
    """Who knows the jobs that run."""

    async def read(self, names: frozenset[str], now_s: float) -> dict[str, Job]:
        """Those of these names, as they are now."""
        ...


@dataclass(slots=True)
class _Watched:
    """What is remembered of a model. ``refused_s``: when a change of it was refused."""

    model: Model
    window: Window = field(default_factory=Window)
    state: State = field(default_factory=State)
    refused_s: float = -math.inf


class Autoscaler:
    """Scales the models that have ``scaling``; ``open`` on the loop that serves."""

    def __init__(
        self,
        models: Mapping[str, Model],
        scaler: Scaler,
        points: Points,
        jobs: Jobs,
        registry: CollectorRegistry,
        *,
        interval_s: float = INTERVAL_S,
        jobs_every_s: float = JOBS_EVERY_S,
    ) -> None:
        self.journal = Journal()
        self._models = models
        self._scaler = scaler
        self._points = points
        self._source = jobs
        self._interval_s = interval_s
        self._jobs_every_s = jobs_every_s
        self._count = Counter(
            "sage_gateway_scaling_decisions",
            "Decisions about the number of replicas",
            ["model", "action", "cause"],
            registry=registry,
        )
        self._watched: dict[str, _Watched] = {}
        self._jobs: dict[str, Job] = {}
        self._nudge = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin."""
        for name, work in {"scaling": self._scale(), "jobs": self._watch_jobs()}.items():
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(_told_if_broken)
            self._tasks.append(task)

    async def close(self) -> None:
        """Decide no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _scale(self) -> None:
        while True:
            for model in list(self._models.values()):
                if model.spec.scaling is not None:
                    self._turn(model, time.monotonic())
                    await asyncio.sleep(0)  # who asks goes first, however many models there are
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._nudge.wait()
            self._nudge.clear()

    def _turn(self, model: Model, now_s: float) -> None:
        assert model.spec.scaling is not None
        watched = self._watched.get(model.name)
        if watched is None or watched.model is not model:  # new, or another of that name
            watched = self._watched[model.name] = _Watched(model)
            model.queue.comes = partial(self._comes, watched)
        jobs = self._callers(model, now_s)
        inputs = watched.window.read(model.load, standing(model), now_s, jobs)
        decision = decide(model.spec.scaling, inputs, watched.state, now_s)
        decision = self._followed(watched, decision)
        watched.state = decision.state
        self._count.labels(model.name, decision.action, decision.cause).inc()
        at_s = time.time()
        self._points.add([point(model.name, decision, at_s)])
        if self.journal.note(model.name, decision, at_s) and _worth_a_line(decision):
            log.info("%s: %s", model.name, _line(decision))

    def _followed(self, watched: "_Watched", decision: Decision) -> Decision:
        """The decision, done; or what stands against it."""
        if decision.action == "hold" or decision.dry_run:
            return decision
        try:
            self._scaler.scale(watched.model.name, decision.replicas)
        except GatewayError as error:
            watched.refused_s = decision.state.changed_s
            return refused(decision, str(error))
        return decision

    def _comes(self, watched: "_Watched") -> bool:
        """Whether a replica of a model with none ready is on its way; at zero one is called."""
        spec, now = watched.model.spec.scaling, standing(watched.model)
        if spec is None or now.replicas:
            return spec is not None and now.starting > 0
        refused_now = time.monotonic() - watched.refused_s < spec.up_cooldown_s
        if spec.dry_run or refused_now:
            return False
        self._nudge.set()
        return True

    def _callers(self, model: Model, now_s: float) -> list[Job]:
        """The jobs that asked this model lately, as far as anything is known of them."""
        return [self._jobs[name] for name in _lately(model, now_s) if name in self._jobs]

    async def _watch_jobs(self) -> None:
        seen_s, away = time.monotonic(), False
        while True:
            await asyncio.sleep(self._jobs_every_s)
            now_s = time.monotonic()
            names = [n for m in self._models.values() if m.spec.scaling for n in _lately(m, now_s)]
            try:
                self._jobs = await self._source.read(frozenset(names), now_s) if names else {}
                seen_s, away = now_s, False
            except UNREADABLE as error:
                if not away:
                    log.warning("scaling without the jobs' lag and load: %r", error)
                away = True
                if now_s - seen_s > JOBS_STALE_S:
                    self._jobs = {}


def standing(model: Model) -> Standing:
    """The replicas and the queue of a model, now."""
    lives = [member.replica.state for member in model.members]
    ready = [m for m in model.members if m.replica.state is Life.READY]
    return Standing(
        replicas=model.wanted,
        ready=len(ready),
        starting=lives.count(Life.STARTING),
        in_flight=sum(member.in_flight for member in model.members),
        limit=sum(member.concurrency for member in ready),
        queue_length=len(model.queue) - model.queue.background,
        background=model.queue.background,
        oldest_s=model.queue.oldest_s(),
        refused=model.queue.turned_away,
    )


def _lately(model: Model, now_s: float) -> list[str]:
    jobs = model.load.jobs
    for name in [one for one, at_s in jobs.items() if now_s - at_s > CALLER_S]:
        del jobs[name]
    return list(jobs)


def _worth_a_line(decision: Decision) -> bool:
    return decision.action != "hold" or decision.cause in WORTH_A_LINE


def _line(decision: Decision) -> str:
    dry = "dry run: " * decision.dry_run
    return f"{dry}{decision.action}, {decision.replicas} ({decision.cause}): {decision.words}"


def _told_if_broken(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("%s: nothing scales any more", task.get_name(), exc_info=error)
