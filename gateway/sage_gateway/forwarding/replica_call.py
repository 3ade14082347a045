"""One request at a replica; the replica's circuit breaker and measured limit learn from it."""

import logging
import time
from collections.abc import Mapping

from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.replicas.circuit_breaker import (
    Breaker,
    Circuit,
    on_cancel,
    on_failure,
    on_send,
    on_success,
    opens,
)
from sage_gateway.requests.response import NO_TOKENS
from sage_gateway.scheduling import concurrency_limit

log = logging.getLogger("sage.gateway")


class AbortedCall:
    """How far a call was when it was cancelled.

    ``used``: the tokens that an engine counted, ``in`` and ``out``. ``seconds``: how long it was at
    an engine that counts only at the end.
    """

    __slots__ = ("seconds", "used")

    def __init__(self) -> None:
        self.used: Mapping[str, int] = NO_TOKENS
        self.seconds = 0.0

    def reset(self) -> None:
        """As before the call."""
        self.used, self.seconds = NO_TOKENS, 0.0


class ReplicaCall:
    """One request at a replica, which takes a place there while the block runs.

    A block that ends without a report counts by how it ends: an exception is a failure; a
    cancellation, or no exception, teaches nothing about the replica.
    """

    __slots__ = ("_epoch", "_reported", "_started_s", "member")

    def __init__(self, member: ReplicaSlot) -> None:
        self.member = member
        self._started_s = 0.0
        self._epoch = 0
        self._reported = False

    def __enter__(self) -> "ReplicaCall":
        member = self.member
        member.acquire()
        self._started_s = time.monotonic()
        member.set_breaker(on_send(member.breaker, self._started_s))
        self._epoch = member.breaker.epoch
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not self._reported:
            if isinstance(error, Exception):
                self.fail()
            else:
                self.member.set_breaker(on_cancel(self.member.breaker, self._epoch))
        self.member.release()
        self.member.on_room_freed()

    @property
    def seconds(self) -> float:
        """The time since the call began."""
        return time.monotonic() - self._started_s

    def succeed(self) -> None:
        """The engine answered, or started to."""
        self._reported = True
        self._set_breaker(on_success(self.member.breaker, self._epoch))

    def finish(self) -> None:
        """The answer is complete: a measured limit learns how long it took."""
        member = self.member
        if member.limit is not None:
            member.set_limit(
                concurrency_limit.record_latency(member.limit, self.seconds, member.in_flight)
            )

    def err(self) -> None:
        """The engine answered with an error, which may be the caller's fault; the limit stays."""
        self._reported = True
        after = on_failure(self.member.breaker, self._epoch, time.monotonic())
        if opens(self.member.breaker, after):
            self.member.request_verification()
        else:
            self._set_breaker(after)

    def fail(self) -> None:
        """The engine did not answer, or not in time: a measured limit shrinks."""
        self._reported = True
        self._set_breaker(on_failure(self.member.breaker, self._epoch, time.monotonic()))
        if self.member.limit is not None:
            self.member.set_limit(concurrency_limit.record_loss(self.member.limit))

    def lose(self) -> None:
        """The engine was lost with the request: it is probed now, and degraded until the probe."""
        self.member.report_loss()
        self.fail()

    def _set_breaker(self, after: Breaker) -> None:
        before = self.member.breaker
        if after is not before:
            self.member.set_breaker(after)
        if after.circuit is before.circuit:
            return
        level = logging.WARNING if after.circuit is Circuit.OPEN else logging.INFO
        name = self.member.replica.name
        log.log(level, "%s: circuit %s -> %s", name, before.circuit, after.circuit)
