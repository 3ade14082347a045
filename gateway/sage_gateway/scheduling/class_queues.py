"""Those who wait, in the order of a policy. Heaps: no length is ever walked to find who is next."""

from heapq import heapify, heappop, heappush

from sage_gateway.scheduling import fifo, slo
from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.queued_request import Ticket

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
    """The line of a model; before it who lost a replica, behind it who is late, and background.

    Late is who would be answered after its deadline were the guess of its work right, under a
    policy that minds deadlines. Let go in its turn it would make the next one late, and under
    overload so on for ever; but a guess is no reason to refuse it. Of background the first are
    those who had begun, and gave way.

    Late ones and background are held back while others wait or pass, but for every
    ``BACKGROUND_EVERY``-th turn: an age at which they may pass would let a thousand lines of a
    batch pass together, a share does not.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.returned = Line(fifo.policy())
        self.late = Line(fifo.policy())
        self.front = Line(policy)
        self.resumed = Line(fifo.policy())
        self.back = Line(policy)
        self._held = 0
        self._late_before = False

    def __len__(self) -> int:
        return self.ahead + len(self.resumed) + len(self.back)

    @property
    def ahead(self) -> int:
        """How many wait who are not background."""
        return len(self.returned) + len(self.late) + len(self.front)

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
        behind = len(self.late) + len(self.resumed) + len(self.back)
        if background_next(len(self.front), behind, self._held):
            return self._from_behind(now_s)
        self._held += behind > 0
        return self._in_time(now_s) or self._from_behind(now_s)

    def _from_behind(self, now_s: float) -> Ticket:
        """The next of the late ones and of background, in turn where there are both."""
        self._held = 0
        background = self.resumed or self.back
        self._late_before = bool(self.late) and not (background and self._late_before)
        if not self._late_before:
            return background.pop(now_s)
        ticket = self.late.pop(now_s)
        self._policy.charge(ticket, ticket.tokens)
        return ticket

    def _in_time(self, now_s: float) -> Ticket | None:
        """The next of the line who is not late; those who are leave it, and owe nothing."""
        while self.front:
            ticket = self.front.pop(now_s)
            if not (self._policy.expires and slo.late(ticket, now_s)):
                return ticket
            self._policy.charge(ticket, -ticket.tokens)
            self.late.push(ticket)
        return None

    def discard(self, ticket: Ticket) -> bool:
        """It leaves; whether it waited."""
        return self.late.discard(ticket) or self._line(ticket).discard(ticket)

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
