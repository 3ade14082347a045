"""Those who wait, in the order of a policy. Heaps: no length is ever walked to find who is next."""

from heapq import heapify, heappop, heappush

from sage_gateway.scheduling import fifo
from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.ticket import Ticket

BACKGROUND_EVERY = 20
STALE_MIN = 64

Heap = list[tuple[float, int]]


class Line:
    """Tickets in one policy's order, each once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._heaps: tuple[Heap, ...] = tuple([] for _ in policy.ranks)
        self._waiting: dict[int, Ticket] = {}
        self._turns = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def oldest_s(self) -> float | None:
        """When the one who waits longest came; numbers rise with the arrivals."""
        return next((ticket.arrived_s for ticket in self._waiting.values()), None)

    def push(self, ticket: Ticket) -> None:
        """It begins to wait."""
        self._waiting[ticket.number] = ticket
        for heap, rank in zip(self._heaps, self._policy.ranks, strict=True):
            heappush(heap, (rank(ticket), ticket.number))

    def pop(self, now_s: float) -> Ticket:
        """Take out who is next; somebody waits."""
        heads = [self._head(heap) for heap in self._heaps]
        ticket = heads[self._policy.turn(heads, self._turns, now_s)]
        self._turns += 1
        self._policy.served(ticket)
        self._remove(ticket)
        return ticket

    def discard(self, ticket: Ticket) -> bool:
        """It leaves, and costs nothing; whether it waited."""
        if ticket.number not in self._waiting:
            return False
        self._policy.charge(ticket, -ticket.tokens)
        self._remove(ticket)
        return True

    def _head(self, heap: Heap) -> Ticket:
        while heap[0][1] not in self._waiting:
            heappop(heap)
        return self._waiting[heap[0][1]]

    def _remove(self, ticket: Ticket) -> None:
        """Its entries stay until they come up, or are too many."""
        del self._waiting[ticket.number]
        for heap in self._heaps:
            if len(heap) > 2 * len(self._waiting) + STALE_MIN:
                heap[:] = [entry for entry in heap if entry[1] in self._waiting]
                heapify(heap)


class Lanes:
    """The line of a model; before it who lost a replica, behind it the background class.

    The first of that class are those who had begun, and gave way.

    Background is held back while others wait or pass, but for every ``BACKGROUND_EVERY``-th turn:
    an age at which it may pass would let a thousand lines of a batch pass together, a share does
    not.
    """

    def __init__(self, policy: Policy) -> None:
        self.returned = Line(fifo.policy())
        self.front = Line(policy)
        self.resumed = Line(fifo.policy())
        self.back = Line(policy)
        self._held = 0

    def __len__(self) -> int:
        return len(self.returned) + len(self.front) + len(self.resumed) + len(self.back)

    @property
    def ahead(self) -> int:
        """How many wait who are not background."""
        return len(self.returned) + len(self.front)

    @property
    def due(self) -> bool:
        """Whether background was held back for as long as it may be."""
        return self._held >= BACKGROUND_EVERY - 1

    def passed(self) -> None:
        """Somebody went by who did not wait."""
        self._held += 1

    def push(self, ticket: Ticket) -> None:
        """It begins to wait."""
        self._line(ticket).push(ticket)

    def pop(self, now_s: float) -> Ticket:
        """Take out who is next; somebody waits."""
        if self.returned:
            return self.returned.pop(now_s)
        behind = self.resumed or self.back
        if background_next(len(self.front), len(behind), self._held):
            self._held = 0
            return behind.pop(now_s)
        self._held += bool(behind)
        return self.front.pop(now_s)

    def discard(self, ticket: Ticket) -> bool:
        """It leaves; whether it waited."""
        return self._line(ticket).discard(ticket)

    def _line(self, ticket: Ticket) -> Line:
        if ticket.returned:
            return self.returned
        if ticket.resumed:
            return self.resumed
        return self.back if ticket.background else self.front


def background_next(front: int, back: int, held: int) -> bool:
    """Whether it is background's turn, of ``back`` who wait and were held back ``held`` times."""
    return back > 0 and (front == 0 or held >= BACKGROUND_EVERY - 1)


def full(waiting: int, behind: int, *, background: bool, queue_max: int) -> bool:
    """Whether one more is too many. ``behind``: how many of those who wait are background.

    Background fills half of a queue at most, so that a batch never turns a user away.
    """
    return waiting >= queue_max or (background and behind >= queue_max // 2)
