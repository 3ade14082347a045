"""The queues inside a model's queue: one per class of request, each in the order of a policy.

Heaps, so that finding the next request never walks a queue.
"""

from heapq import heapify, heappop, heappush

from sage_gateway.scheduling import fifo, slo
from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.queued_request import QueuedRequest

BACKGROUND_EVERY = 20
STALE_MIN = 64

Heap = list[tuple[float, int]]


class PolicyQueue:
    """Requests in the order of one policy: a heap per rank of the policy."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self._heaps: tuple[Heap, ...] = tuple([] for _ in policy.ranks)
        self._requests: dict[int, QueuedRequest] = {}
        self._pops = 0

    def __len__(self) -> int:
        return len(self._requests)

    def oldest_arrival_s(self) -> float | None:
        """When the oldest request arrived; numbers rise with the arrivals. None if empty."""
        return next((request.arrived_s for request in self._requests.values()), None)

    def push(self, request: QueuedRequest) -> None:
        """Add a request."""
        self._requests[request.number] = request
        for heap, rank in zip(self._heaps, self._policy.ranks, strict=True):
            heappush(heap, (rank(request), request.number))

    def pop(self, now_s: float) -> QueuedRequest:
        """Remove and return the next request of a queue that is not empty."""
        heads = [self._head(heap) for heap in self._heaps]
        request = heads[self._policy.choose_head(heads, self._pops, now_s)]
        self._pops += 1
        self._policy.on_dispatch(request)
        self._remove(request)
        return request

    def discard(self, request: QueuedRequest) -> bool:
        """Remove a request without charging its tokens; whether it was queued."""
        if request.number not in self._requests:
            return False
        self._policy.charge(request, -request.tokens)
        self._remove(request)
        return True

    def _head(self, heap: Heap) -> QueuedRequest:
        while heap[0][1] not in self._requests:
            heappop(heap)
        return self._requests[heap[0][1]]

    def _remove(self, request: QueuedRequest) -> None:
        """Its heap entries stay until they are the head, or until stale entries are too many."""
        del self._requests[request.number]
        for heap in self._heaps:
            if len(heap) > 2 * len(self._requests) + STALE_MIN:
                heap[:] = [entry for entry in heap if entry[1] in self._requests]
                heapify(heap)


class ClassQueues:
    """Four queues per model, served in this order: retries, main, overdue, background.

    ``main`` is in policy order. ``overdue`` holds the requests that are predicted to miss their
    deadline, under a policy that enforces deadlines. Dispatched in their turn they would make the
    next request overdue, and under overload every request after it; but a prediction is not a
    reason to refuse them. ``preempted`` holds background requests that were preempted; they precede
    the rest of ``background``.

    Overdue and background requests are deferred while others are queued or bypass, except for
    every ``BACKGROUND_EVERY``-th dispatch: an age limit would let a thousand rows of a batch become
    due together, a share does not.
    """

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self.retries = PolicyQueue(fifo.policy())
        self.overdue = PolicyQueue(fifo.policy())
        self.main = PolicyQueue(policy)
        self.preempted = PolicyQueue(fifo.policy())
        self.background = PolicyQueue(policy)
        self._deferrals = 0
        self._last_deferred_was_overdue = False

    def __len__(self) -> int:
        return self.foreground_count + len(self.preempted) + len(self.background)

    @property
    def foreground_count(self) -> int:
        """The number of queued requests that are not background."""
        return len(self.retries) + len(self.overdue) + len(self.main)

    @property
    def background_due(self) -> bool:
        """Whether background has been deferred as often as it may be."""
        return self._deferrals >= BACKGROUND_EVERY - 1

    def count_bypass(self) -> None:
        """Count a request that bypassed these queues as a deferral of background."""
        self._deferrals += 1

    def push(self, request: QueuedRequest) -> None:
        """Queue a request in the queue of its class."""
        self._queue_of(request).push(request)

    def pop(self, now_s: float) -> QueuedRequest:
        """Remove and return the next request; at least one is queued."""
        if self.retries:
            return self.retries.pop(now_s)
        deferred = len(self.overdue) + len(self.preempted) + len(self.background)
        if background_next(len(self.main), deferred, self._deferrals):
            return self._pop_deferred(now_s)
        self._deferrals += deferred > 0
        return self._pop_timely(now_s) or self._pop_deferred(now_s)

    def _pop_deferred(self, now_s: float) -> QueuedRequest:
        """The next of the overdue and background requests, alternating where there are both."""
        self._deferrals = 0
        background = self.preempted or self.background
        alternate = background and self._last_deferred_was_overdue
        self._last_deferred_was_overdue = bool(self.overdue) and not alternate
        if not self._last_deferred_was_overdue:
            return background.pop(now_s)
        request = self.overdue.pop(now_s)
        self._policy.charge(request, request.tokens)
        return request

    def _pop_timely(self, now_s: float) -> QueuedRequest | None:
        """The next of ``main`` that is not overdue; overdue ones move, and are not charged."""
        while self.main:
            request = self.main.pop(now_s)
            if not (self._policy.enforces_deadlines and slo.is_overdue(request, now_s)):
                return request
            self._policy.charge(request, -request.tokens)
            self.overdue.push(request)
        return None

    def discard(self, request: QueuedRequest) -> bool:
        """Remove a request; whether it was queued."""
        return self.overdue.discard(request) or self._queue_of(request).discard(request)

    def _queue_of(self, request: QueuedRequest) -> PolicyQueue:
        if request.retry:
            return self.retries
        if request.preempted:
            return self.preempted
        return self.background if request.background else self.main


def background_next(main: int, deferred: int, deferrals: int) -> bool:
    """Whether a deferred request is next, given the queues' lengths and the deferrals so far."""
    return deferred > 0 and (main == 0 or deferrals >= BACKGROUND_EVERY - 1)


def is_full(queued: int, queued_background: int, *, background: bool, queue_max: int) -> bool:
    """Whether the queue cannot take one more request.

    Background fills at most half of a queue, so that a batch never causes a user's rejection.
    """
    return queued >= queue_max or (background and queued_background >= queue_max // 2)
