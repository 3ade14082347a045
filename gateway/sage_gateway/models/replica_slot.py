"""A replica slot: one replica of a model with the engine process or remote session behind it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from sage_gateway.engines import ENGINES, Launch
from sage_gateway.engines.process import Process
from sage_gateway.openai.engine_answer import counts_first_choice
from sage_gateway.replicas.circuit_breaker import Breaker, is_trusted
from sage_gateway.replicas.lifecycle import Replica
from sage_gateway.routing import Candidate
from sage_gateway.routing.candidate_set import RoutedReplica
from sage_gateway.scheduling import ConcurrencyLimit


@dataclass(slots=True, eq=False)
class ReplicaSlot:
    """A replica with what runs behind it.

    ``index``: its number in the model for its whole life; routing identifies it by that.
    ``concurrency``: how many requests it takes at a time, from ``limit`` where that is measured.
    ``session`` and ``headers``: for requests to a remote engine; ``joined``: as ``Engine.joined``,
    where one of its answers shows that it needs that. ``suspect``: a request was lost
    there, or a check is slow, since its last good check. ``on_room_freed``: called when a request
    has left. ``check_now`` requests a health check, which with ``verification_due`` asks for one
    token.

    Routing reads ``replica``, ``in_flight``, ``concurrency``, ``suspect`` and ``breaker``. They are
    written by the methods below only: each notes the slot in ``changes``, the set of slots that the
    model's candidate set looks at before its next decision.
    """

    replica: Replica
    launch: Launch
    index: int = 0
    changes: set[RoutedReplica] = field(default_factory=set)
    process: Process | None = None
    launched_s: float = 0.0
    record: Path | None = None
    session: aiohttp.ClientSession | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, Any] | None = None
    in_flight: int = 0
    limit: ConcurrencyLimit | None = None
    concurrency: int = field(init=False)
    suspect: bool = False
    on_room_freed: Callable[[], None] = lambda: None
    breaker: Breaker = field(default_factory=Breaker)
    check_now: asyncio.Event = field(default_factory=asyncio.Event)
    verification_due: bool = False

    def __post_init__(self) -> None:
        limit = self.limit
        self.concurrency = limit.concurrency if limit else self.launch.spec.concurrency_max

    def acquire(self) -> None:
        """Count a request that was sent to the replica."""
        self.in_flight += 1
        self.changes.add(self)

    def release(self) -> None:
        """Count a request that has left the replica."""
        self.in_flight -= 1
        self.changes.add(self)

    def set_replica(self, replica: Replica) -> None:
        """Change the lifecycle state; only the replica's supervisor does."""
        self.replica = replica
        self.changes.add(self)

    def set_breaker(self, breaker: Breaker) -> None:
        """Change the circuit breaker."""
        self.breaker = breaker
        self.changes.add(self)

    def set_limit(self, limit: ConcurrencyLimit) -> None:
        """Change the measured concurrency limit."""
        self.limit, self.concurrency = limit, limit.concurrency
        self.changes.add(self)

    def set_suspect(self, suspect: bool) -> None:
        """Mark the replica as suspect, or clear the mark after a good check."""
        self.suspect = suspect
        self.changes.add(self)

    def report_loss(self) -> None:
        """Mark the replica as suspect after a lost request, and request a check."""
        self.set_suspect(True)
        self.check_now.set()

    def request_verification(self) -> None:
        """Request a check whether the replica still answers, before its errors open the circuit."""
        self.verification_due = True
        self.check_now.set()

    def learn_from(self, answer: bytes) -> None:
        """Note whether a remote engine is llama.cpp, by a whole answer to a generation."""
        if self.launch.target is not None:
            found = counts_first_choice(answer)
            self.joined = ENGINES["llamacpp"].joined if found else None

    def room(self) -> int:
        """How many more requests it takes now."""
        return max(0, self.concurrency - self.in_flight)

    def is_degraded(self, now_s: float) -> bool:
        """Whether routing prefers every other replica.

        It lost a request or missed a check since its last good check, or its circuit is not closed.
        """
        return self.suspect or self.replica.missed > 0 or not is_trusted(self.breaker, now_s)

    def url(self, path: str) -> str:
        """The address of ``path`` at this replica."""
        to = self.launch.target
        return f"http://127.0.0.1:{self.launch.port}{path}" if to is None else to.address(path)

    def candidate(self, now_s: float) -> Candidate:
        """This replica as routing sees it."""
        state, load = self.replica.state, self.in_flight
        return Candidate(self.index, state, load, self.is_degraded(now_s), load < self.concurrency)
