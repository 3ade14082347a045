"""Who waits for a model's replicas; the one owner of that state, on the loop that serves.

Where nobody waits and a replica has room a request passes: no future, no heap. Else its ticket
waits in the order of the model's policy, and :meth:`Queue.pump` lets go as many as find room. Every
ticket ends once: let go, or refused, expired, out of time, left.

**Who is let go holds its room until its task runs** and takes a replica; that must follow without
an await between, and room is counted less those who are still on their way.
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
from sage_gateway.scheduling.class_queues import Lanes, full
from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.preemption import Turns
from sage_gateway.scheduling.queued_request import Ticket, Wishes

POLICIES: Mapping[str, Callable[[], Policy]] = {
    name: import_module(f"sage_gateway.scheduling.{name}").policy for name in get_args(Scheduling)
}
PACE_SHARE = 0.05


class Clock(NamedTuple):
    """Where the time is from: a simulation has another. Deadlines are of the epoch."""

    monotonic: Callable[[], float] = time.monotonic
    epoch: Callable[[], float] = time.time


CLOCK = Clock()


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many may wait, and how long."""

    queue_max: int
    timeout_s: float


class Queue:
    """One model's queue.

    ``room``: whether the replicas have room for more than so many requests. ``ready``: how many
    replicas are ready; where none is, nobody waits, for the forwarding says why, unless ``comes``
    tells that one is on its way. ``spare``: whether there is room that background work may take;
    left out, all of it. ``turned_away``: who left for want of room, background aside. ``freed`` is
    called when one who was counted on leaves, ``make_way`` when so many users wait for background
    work to give way; left out, both concern this queue alone.
    """

    def __init__(
        self,
        model: str,
        policy: Policy,
        bounds: Bounds,
        *,
        room: Callable[[int], bool],
        ready: Callable[[], int],
        spare: Callable[[int], bool] | None = None,
        freed: Callable[[], None] | None = None,
        make_way: Callable[[int], None] | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self.comes: Callable[[], bool] = lambda: False
        self.turned_away = 0
        self.ended: Counter[str] = Counter(let_go=0, refused=0, expired=0, timed_out=0, left=0)
        self.turns = Turns()
        self._model = model
        self._policy = policy
        self._bounds = bounds
        self._room = room
        self._ready = ready
        self._clock = clock
        self._spare = spare or room
        self._freed = freed or self.pump
        self._make_way = make_way or self.turns.give_way
        self._lanes = Lanes(policy)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._numbers = count()
        self._on_their_way = 0
        self._drain = service_rate.Drain()
        self._pace_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def idle(self) -> bool:
        """Whether nobody waits, or was let go and has not taken a replica yet."""
        return not self._waiting and not self._on_their_way

    @property
    def background(self) -> int:
        """How many of the background class wait."""
        return len(self._lanes) - self._lanes.ahead

    @property
    def ahead(self) -> int:
        """How many others wait."""
        return self._lanes.ahead

    @property
    def on_their_way(self) -> int:
        """How many were let go and have not taken a replica yet."""
        return self._on_their_way

    def oldest_s(self) -> float:
        """How long the first of the others has waited."""
        lanes = (self._lanes.returned, self._lanes.late, self._lanes.front)
        came = [at for lane in lanes if (at := lane.oldest_s()) is not None]
        return self._clock.monotonic() - min(came) if came else 0.0

    def passes(self) -> bool:
        """Whether a request that is not background would not have to wait."""
        return not (self._waiting and self._lanes.ahead) and self._room(self._on_their_way)

    async def enter(self, wishes: Wishes, tokens: int) -> Ticket | None:
        """The ticket of one who waited until a replica had room; None for one who did not wait.

        ``tokens``: the cost expected. A caller who is cancelled leaves at once.

        Raises:
            GatewayError: 429 too many wait, or it waited for ``timeout_s``; 504 the policy minds
                deadlines, and this one's is over or cannot be kept.
        """
        if self._policy.expires and wishes.deadline_s <= self._clock.epoch():
            raise self._expired()
        if self._passed(wishes) or not (self._ready() or self.comes()):
            return None
        ticket = self._ticket(wishes, tokens)
        if full(
            len(self._lanes),
            len(self._lanes.back),
            background=ticket.background,
            queue_max=self._bounds.queue_max,
        ):
            self.turned_away += not ticket.background
            raise self._refused()
        await self._wait(ticket)
        return ticket

    async def resume(self, wishes: Wishes, tokens: int) -> None:
        """Wait for room, before all other background: that request gave way.

        Raises:
            GatewayError: as :meth:`enter`.
        """
        if self._ready() and not self._passed(wishes):
            await self._wait(replace(self._ticket(wishes, tokens), resumed=True))

    async def again(self) -> None:
        """Wait for room once more, before all others: the replica that one had was lost.

        Raises:
            GatewayError: 429, it waited for ``timeout_s``.
        """
        if not self._room(self._on_their_way):
            await self._wait(Ticket(next(self._numbers), self._clock.monotonic(), returned=True))

    def pump(self) -> None:
        """Let go as many as there is room for; to be called whenever room may have come."""
        while self._waiting and self._room(self._on_their_way):
            if not (self._lanes.ahead or self._lanes.due or self._spare(self._on_their_way)):
                return
            self._let_go(self._clock.monotonic())

    def settle(self, ticket: Ticket, begun_s: float, used: Mapping[str, int]) -> None:
        """``ticket`` was let go at ``begun_s`` and is answered; the engine counted ``used``."""
        pace_s = (self._clock.monotonic() - begun_s) / ticket.tokens
        self._pace_s += (pace_s - self._pace_s) * (PACE_SHARE if self._pace_s else 1.0)
        if "in" in used:
            self._policy.charge(ticket, sum(used.values()) - ticket.tokens)

    def _passed(self, wishes: Wishes) -> bool:
        """Whether it passes; where it takes what background work computes on, one makes way."""
        if wishes.background:
            return not self._waiting and self._spare(self._on_their_way)
        if not self.passes():
            return False
        if self._waiting:
            self._lanes.passed()
        if self.turns.running and not self._spare(self._on_their_way):
            self.turns.make_way()
        return True

    async def _wait(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._drain = service_rate.resumed(self._drain, ticket.arrived_s)
        future = self._waiting[ticket.number] = loop.create_future()
        self._lanes.push(ticket)
        if not ticket.background and not ticket.returned:
            self._make_way(len(self._lanes.front))
        patience_s = self._patience_s(ticket)
        over = patience_s < self._bounds.timeout_s
        timer = loop.call_later(patience_s, self._give_up, ticket, over)
        try:
            await future
        except BaseException:
            self._leave(ticket, future)
            raise
        finally:
            timer.cancel()
        self._on_their_way -= 1

    def _let_go(self, now_s: float) -> None:
        ticket = self._lanes.pop(now_s)
        future = self._waiting.pop(ticket.number)
        over = self._policy.expires and slo.expired(ticket, now_s)
        if over or future.cancelled():
            self._policy.charge(ticket, -ticket.tokens)
            if future.cancelled():  # its caller hung up in this very turn
                self.ended["left"] += 1
            else:
                future.set_exception(self._expired())
            return
        self._on_their_way += 1
        self.ended["let_go"] += 1
        self._drain = service_rate.drained(self._drain, now_s)
        future.set_result(None)

    def _give_up(self, ticket: Ticket, over: bool) -> None:
        """Its time is up, and its deadline where that is ``over``; not of one just let go."""
        future = self._waiting.get(ticket.number)
        if future is None or future.cancelled():
            return
        del self._waiting[ticket.number]
        self._lanes.discard(ticket)
        self.turned_away += not (over or ticket.background)
        future.set_exception(self._expired() if over else self._timed_out())
        self._freed()

    def _leave(self, ticket: Ticket, future: "asyncio.Future[None]") -> None:
        """It does not go: of one that was let go already, another takes the room."""
        if self._waiting.pop(ticket.number, None) is not None:
            self._lanes.discard(ticket)
            self.ended["left"] += 1
            self._freed()
        elif not future.cancelled() and future.exception() is None:
            self._on_their_way -= 1
            self._freed()

    def _patience_s(self, ticket: Ticket) -> float:
        if not self._policy.expires:
            return self._bounds.timeout_s
        left_s = ticket.deadline_s - slo.SURE * ticket.work_s - ticket.arrived_s
        return max(0.0, min(self._bounds.timeout_s, left_s))

    def _ticket(self, wishes: Wishes, tokens: int) -> Ticket:
        now_s = self._clock.monotonic()
        return Ticket(
            next(self._numbers),
            now_s,
            tenant=wishes.tenant,
            priority=wishes.priority,
            deadline_s=wishes.deadline_s - self._clock.epoch() + now_s,
            tokens=tokens,
            work_s=tokens * self._pace_s,
        )

    def _refused(self) -> QueueFull:
        self.ended["refused"] += 1
        return self._busy(f"no room, and {len(self)} requests wait already", "rate_limit_exceeded")

    def _timed_out(self) -> QueueFull:
        self.ended["timed_out"] += 1
        return self._busy(f"no room within {self._bounds.timeout_s:g} s", "queue_timeout")

    def _busy(self, why: str, code: str) -> QueueFull:
        seconds = service_rate.retry_after_s(self._drain, len(self), self._clock.monotonic())
        message = f"{self._model}: {why}; try again in {seconds} s"
        return QueueFull(message, code=code, retry_after_s=seconds)

    def _expired(self) -> DeadlineExceeded:
        self.ended["expired"] += 1
        why = "its deadline is over, or would be before it is answered; give it more time"
        return DeadlineExceeded(f"{self._model}: {why}")
