"""One request at a replica, and what the replica's circuit and its measured limit learn of it."""

import logging
import time

from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.replicas.circuit_breaker import (
    Breaker,
    Circuit,
    on_cancel,
    on_failure,
    on_send,
    on_success,
)
from sage_gateway.scheduling import concurrency_limit

log = logging.getLogger("sage.gateway")


class ReplicaCall:
    """One request at a replica, in flight while the block runs; then its room is another's.

    What was not told by the end of the block is told by how it ends: an exception is a failure, but
    a cancelled call, or a block that just ends, says nothing about the replica.
    """

    __slots__ = ("_begun_s", "_epoch", "_told", "member")

    def __init__(self, member: ReplicaSlot) -> None:
        self.member = member
        self._begun_s = 0.0
        self._epoch = 0
        self._told = False

    def __enter__(self) -> "ReplicaCall":
        member = self.member
        member.acquire()
        self._begun_s = time.monotonic()
        member.set_breaker(on_send(member.breaker, self._begun_s))
        self._epoch = member.breaker.epoch
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not self._told:
            if isinstance(error, Exception):
                self.fail()
            else:
                self.member.set_breaker(on_cancel(self.member.breaker, self._epoch))
        self.member.release()
        self.member.on_room_freed()

    def succeed(self) -> None:
        """The engine has answered, or has begun to."""
        self._told = True
        self._turn(on_success(self.member.breaker, self._epoch))

    def finish(self) -> None:
        """The answer is whole: a measured limit learns how long it took."""
        member = self.member
        if member.limit is not None:
            seconds = time.monotonic() - self._begun_s
            member.set_limit(
                concurrency_limit.record_latency(member.limit, seconds, member.in_flight)
            )

    def err(self) -> None:
        """The engine answered with a failure of its own, which says nothing about its room."""
        self._told = True
        self._turn(on_failure(self.member.breaker, self._epoch, time.monotonic()))

    def fail(self) -> None:
        """The engine did not answer, or not in time: a measured limit shrinks."""
        self.err()
        if self.member.limit is not None:
            self.member.set_limit(concurrency_limit.record_loss(self.member.limit))

    def lose(self) -> None:
        """The engine went away with the request: it is checked at once, and doubted until then."""
        self.member.report_loss()
        self.fail()

    def _turn(self, after: Breaker) -> None:
        before = self.member.breaker
        if after is not before:
            self.member.set_breaker(after)
        if after.circuit is before.circuit:
            return
        level = logging.WARNING if after.circuit is Circuit.OPEN else logging.INFO
        name = self.member.replica.name
        log.log(level, "%s: circuit %s -> %s", name, before.circuit, after.circuit)
