"""The request queue of one model. All its state belongs to the event loop that serves.

A request bypasses the queue when no request is queued and a replica has room: no future, no heap.
Otherwise it is queued in the order of the model's policy, and :meth:`Queue.dispatch` hands out the
room there is. Every queued request has one outcome: dispatched, rejected, expired, timed out or
cancelled.

**A dispatched request reserves its room until its task runs** and takes a replica, which must
happen without an await between the two. Free room is therefore counted less the requests that are
dispatched and have not taken a replica yet.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from typing import NamedTuple, get_args

from msgspec.structs import replace

from sage_gateway.config.pool_spec import Scheduling
from sage_gateway.errors import DeadlineExceeded, QueueFull
from sage_gateway.scheduling import service_rate, slo
from sage_gateway.scheduling.class_queues import ClassQueues, is_full
from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.preemption import PreemptibleRequests
from sage_gateway.scheduling.queued_request import QueuedRequest, RequestHints

POLICIES: Mapping[str, Callable[[], SchedulingPolicy]] = {
    name: import_module(f"sage_gateway.scheduling.{name}").policy for name in get_args(Scheduling)
}
PACE_SHARE = 0.05
OUTCOMES = ("dispatched", "rejected", "expired", "timed_out", "cancelled")


class QueueClock(NamedTuple):
    """The clocks of a queue; a simulation passes its own. Deadlines are seconds of the epoch."""

    monotonic: Callable[[], float] = time.monotonic
    epoch: Callable[[], float] = time.time


CLOCK = QueueClock()


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many requests may be queued, and for how long."""

    queue_max: int
    timeout_s: float


class Queue:
    """The queued requests of one model.

    ``has_room(n)``: whether the replicas have room for more than ``n`` requests.
    ``has_background_room(n)``: the same for background requests; by default ``has_room``.
    ``ready_replicas``: the number of ready replicas. While it is 0 a request is not queued, because
    forwarding reports the reason, unless ``expects_replica()`` says that a replica is starting.
    ``on_room_freed``: called when a request that reserved room leaves; by default
    :meth:`dispatch`. ``on_demand(n)``: called when ``n`` requests ahead of background are queued,
    so that background requests can be preempted; by default only those of this queue.
    ``rejections``: requests that left for lack of room, background excluded.
    """

    def __init__(
        self,
        model: str,
        policy: SchedulingPolicy,
        limits: QueueLimits,
        *,
        has_room: Callable[[int], bool],
        ready_replicas: Callable[[], int],
        has_background_room: Callable[[int], bool] | None = None,
        expects_replica: Callable[[], bool] = lambda: False,
        on_room_freed: Callable[[], None] | None = None,
        on_demand: Callable[[int], None] | None = None,
        clock: QueueClock = CLOCK,
    ) -> None:
        self.rejections = 0
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.preemptible = PreemptibleRequests()
        self._model = model
        self._policy = policy
        self._limits = limits
        self._has_room = has_room
        self._ready_replicas = ready_replicas
        self._expects_replica = expects_replica
        self._clock = clock
        self._has_background_room = has_background_room or has_room
        self._on_room_freed = on_room_freed or self.dispatch
        self._on_demand = on_demand or self.preemptible.preempt_until
        self._queues = ClassQueues(policy)
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._numbers = count()
        self._dispatching = 0
        self._service_rate = service_rate.ServiceRate()
        self._pace_s = 0.0

    def __len__(self) -> int:
        return len(self._futures)

    def is_idle(self) -> bool:
        """Whether no request is queued, or dispatched without a replica yet."""
        return not self._futures and not self._dispatching

    @property
    def background_count(self) -> int:
        """The number of queued background requests."""
        return len(self._queues) - self._queues.foreground_count

    @property
    def foreground_count(self) -> int:
        """The number of queued requests that are not background."""
        return self._queues.foreground_count

    @property
    def dispatching(self) -> int:
        """The number of requests that are dispatched and have not taken a replica yet."""
        return self._dispatching

    def oldest_wait_s(self) -> float:
        """How long the oldest foreground request has been queued; 0 without one."""
        queues = (self._queues.retries, self._queues.overdue, self._queues.main)
        arrivals = [at for queue in queues if (at := queue.oldest_arrival_s()) is not None]
        return self._clock.monotonic() - min(arrivals) if arrivals else 0.0

    def can_bypass(self) -> bool:
        """Whether a foreground request would get a replica without being queued."""
        queued = self._futures and self._queues.foreground_count
        return not queued and self._has_room(self._dispatching)

    async def admit(self, hints: RequestHints, tokens: int) -> QueuedRequest | None:
        """Return once a replica has room: the request as it was queued, None if it bypassed.

        ``tokens``: the expected cost. When the caller is cancelled the request leaves the queue.

        Raises:
            QueueFull: too many requests are queued, or this one was for ``timeout_s``.
            DeadlineExceeded: the policy enforces deadlines, and this one is over or cannot be met.
        """
        if self._policy.enforces_deadlines and hints.deadline_s <= self._clock.epoch():
            raise self._expire()
        if self._try_bypass(hints) or not (self._ready_replicas() or self._expects_replica()):
            return None
        request = self._request(hints, tokens)
        queued, background = len(self._queues), request.background
        queued_background, queue_max = len(self._queues.background), self._limits.queue_max
        if is_full(queued, queued_background, background=background, queue_max=queue_max):
            self.rejections += not background
            why = f"no room, and {len(self)} requests wait already"
            raise self._queue_full("rejected", why, "rate_limit_exceeded")
        await self._wait(request)
        return request

    async def requeue_preempted(self, hints: RequestHints, tokens: int) -> None:
        """Wait for room ahead of all other background requests, after a preemption.

        Raises:
            QueueFull, DeadlineExceeded: as :meth:`admit`.
        """
        if self._ready_replicas() and not self._try_bypass(hints):
            await self._wait(replace(self._request(hints, tokens), preempted=True))

    async def requeue_retry(self) -> None:
        """Wait for room ahead of all other requests, after the replica was lost.

        Raises:
            QueueFull: it was queued for ``timeout_s``.
        """
        if not self._has_room(self._dispatching):
            number, now_s = next(self._numbers), self._clock.monotonic()
            await self._wait(QueuedRequest(number, now_s, retry=True))

    def dispatch(self) -> None:
        """Dispatch as many requests as there is room for; call it whenever room may be free."""
        while self._futures and self._has_room(self._dispatching):
            background_only = not (self._queues.foreground_count or self._queues.background_due)
            if background_only and not self._has_background_room(self._dispatching):
                return
            self._dispatch_next(self._clock.monotonic())

    def record_usage(
        self, request: QueuedRequest, dispatched_s: float, used: Mapping[str, int]
    ) -> None:
        """Learn from a finished request: its pace, and the tokens that the engine counted."""
        pace_s = (self._clock.monotonic() - dispatched_s) / request.tokens
        self._pace_s += (pace_s - self._pace_s) * (PACE_SHARE if self._pace_s else 1.0)
        if "in" in used:
            self._policy.charge(request, sum(used.values()) - request.tokens)

    def _try_bypass(self, hints: RequestHints) -> bool:
        """Bypass the queue if possible.

        A request that takes a slot on which background work is computed preempts one of them.
        """
        if hints.background:
            return not self._futures and self._has_background_room(self._dispatching)
        if not self.can_bypass():
            return False
        if self._futures:
            self._queues.count_bypass()
        if self.preemptible.running and not self._has_background_room(self._dispatching):
            self.preemptible.preempt_one()
        return True

    async def _wait(self, request: QueuedRequest) -> None:
        loop = asyncio.get_running_loop()
        if not self._futures:
            self._service_rate = service_rate.resume(self._service_rate, request.arrived_s)
        future = self._futures[request.number] = loop.create_future()
        self._queues.push(request)
        if not request.background and not request.retry:
            self._on_demand(len(self._queues.main))
        wait_max_s = self._wait_max_s(request)
        overdue = wait_max_s < self._limits.timeout_s
        timer = loop.call_later(wait_max_s, self._time_out, request, overdue)
        try:
            await future
        except BaseException:
            self._cancel(request, future)
            raise
        finally:
            timer.cancel()
        self._dispatching -= 1

    def _dispatch_next(self, now_s: float) -> None:
        request = self._queues.pop(now_s)
        future = self._futures.pop(request.number)
        expired = self._policy.enforces_deadlines and slo.is_expired(request, now_s)
        if expired or future.cancelled():
            self._policy.charge(request, -request.tokens)
            if future.cancelled():  # the caller hung up in this iteration of the loop
                self.outcomes["cancelled"] += 1
            else:
                future.set_exception(self._expire())
            return
        self._dispatching += 1
        self.outcomes["dispatched"] += 1
        self._service_rate = service_rate.record(self._service_rate, now_s)
        future.set_result(None)

    def _time_out(self, request: QueuedRequest, overdue: bool) -> None:
        """End the wait, with a missed deadline if ``overdue``; a dispatched request is left."""
        future = self._futures.get(request.number)
        if future is None or future.cancelled():
            return
        del self._futures[request.number]
        self._queues.discard(request)
        self.rejections += not (overdue or request.background)
        why = f"no room within {self._limits.timeout_s:g} s"
        future.set_exception(
            self._expire() if overdue else self._queue_full("timed_out", why, "queue_timeout")
        )
        self._on_room_freed()

    def _cancel(self, request: QueuedRequest, future: "asyncio.Future[None]") -> None:
        """Remove the request; if it was dispatched already, its room is free again."""
        if self._futures.pop(request.number, None) is not None:
            self._queues.discard(request)
            self.outcomes["cancelled"] += 1
            self._on_room_freed()
        elif not future.cancelled() and future.exception() is None:
            self._dispatching -= 1
            self._on_room_freed()

    def _wait_max_s(self, request: QueuedRequest) -> float:
        if not self._policy.enforces_deadlines:
            return self._limits.timeout_s
        latest_s = request.deadline_s - slo.CERTAIN_WORK_SHARE * request.work_s
        return max(0.0, min(self._limits.timeout_s, latest_s - request.arrived_s))

    def _request(self, hints: RequestHints, tokens: int) -> QueuedRequest:
        now_s = self._clock.monotonic()
        return QueuedRequest(
            next(self._numbers),
            now_s,
            tenant=hints.tenant,
            priority=hints.priority,
            deadline_s=hints.deadline_s - self._clock.epoch() + now_s,
            soft_deadline_s=hints.soft_deadline_s - self._clock.epoch() + now_s,
            tokens=tokens,
            work_s=tokens * self._pace_s,
        )

    def _queue_full(self, outcome: str, why: str, code: str) -> QueueFull:
        self.outcomes[outcome] += 1
        now_s = self._clock.monotonic()
        seconds = service_rate.retry_after_s(self._service_rate, len(self), now_s)
        message = f"{self._model}: {why}; try again in {seconds} s"
        return QueueFull(message, code=code, retry_after_s=seconds)

    def _expire(self) -> DeadlineExceeded:
        self.outcomes["expired"] += 1
        why = "its deadline is over, or would be before it is answered; give it more time"
        return DeadlineExceeded(f"{self._model}: {why}")
