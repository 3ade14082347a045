"""Tracks the outcome of requests: metrics, the model's load, the trace, the recording, the log."""

import time
from collections.abc import Mapping

from sage_gateway.models.model import Model
from sage_gateway.observability.logs import RequestLog
from sage_gateway.observability.metrics import Metrics
from sage_gateway.observability.tracing import Span, Tracing
from sage_gateway.openai.error_table import status_of
from sage_gateway.openai.foreign_errors import gateway_error
from sage_gateway.replay import Recorder
from sage_gateway.replay.recorder import RequestRecording
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import NO_TOKENS, StreamFacts
from sage_gateway.scheduling import QueuedRequest, RequestHints

UNKNOWN_MODEL = "-"
CLIENT_CLOSED = 499


class RequestTracking:
    """Creates the trackers; without ``recorder`` or ``tracing``, those are off."""

    def __init__(
        self,
        metrics: Metrics,
        log: RequestLog | None = None,
        *,
        recorder: Recorder | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.metrics = metrics
        self.log = log or RequestLog()
        self.recorder = recorder
        self.tracing = tracing

    def begin(self, request: Request) -> "RequestTracker":
        """A tracker for ``request``; its time starts now."""
        self.metrics.in_flight += 1
        request.tracked = True
        span = self.tracing.begin(request) if self.tracing else None
        if span is not None:
            request.traceparent = span.traceparent
        return RequestTracker(self, request, span)


class RequestTracker:
    """One request's outcome, reported once; an observer of its stream.

    ``model``: the name of a known model, or ``-``.
    """

    __slots__ = (
        "_dispatched_s",
        "_first_byte_s",
        "_open",
        "_pool_model",
        "_queued",
        "_recording",
        "_request",
        "_span",
        "_started_s",
        "_tracking",
        "model",
    )

    def __init__(self, tracking: RequestTracking, request: Request, span: Span | None) -> None:
        self.model = UNKNOWN_MODEL
        self._tracking = tracking
        self._request = request
        self._span = span
        self._started_s = time.perf_counter()
        self._first_byte_s = self._dispatched_s = 0.0
        self._open = True
        self._pool_model: Model | None = None
        self._queued: QueuedRequest | None = None
        self._recording: RequestRecording | None = None

    def queue(self, model: Model, hints: RequestHints, tokens: int) -> None:
        """The request enters the queue of ``model``; it is expected to cost ``tokens``."""
        self.model, self._pool_model = model.name, model
        model.load.record_request(time.monotonic(), "" if hints.background else hints.job)
        if self._tracking.recorder is not None:
            self._recording = self._tracking.recorder.start(model.name, hints, tokens)

    def dispatch(self, queued: QueuedRequest | None) -> None:
        """A replica has room for the request; ``queued`` is None if it did not have to wait."""
        if self._recording is not None:
            self._recording.mark_dispatched()
        if self._span is not None:
            self._span.dispatch()
        model = self._pool_model
        assert model is not None
        if queued is None:
            model.load.waits.add(0.0)
            return
        self._queued = queued
        self._dispatched_s = now_s = time.monotonic()
        waited_s = now_s - queued.arrived_s
        self._tracking.metrics.queue_wait_of(model.name).observe(waited_s)
        if not queued.background:
            model.load.waits.add(waited_s)

    def resume(self) -> None:
        """The request was preempted, and a replica has room for it again."""
        self._dispatched_s = time.monotonic()

    def first_bytes(self) -> None:
        """The first bytes of a stream are there."""
        self._first_byte_s = time.perf_counter()
        if self._span is not None:
            self._span.first_bytes()

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        """The outcome is known at the end only."""

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        """A stream is over; if it is neither ``complete`` nor broken, the client disconnected."""
        if complete or facts.is_broken:
            self.end(facts.status, {"out": facts.deltas, **facts.used})
        else:
            self.end(CLIENT_CLOSED)

    def end(self, status: int, used: Mapping[str, int] = NO_TOKENS) -> None:
        """The request is over; status 499: the client disconnected. Only the first call counts."""
        if not self._open:
            return
        self._open = False
        now_s = time.perf_counter()
        seconds = now_s - self._request.received_s
        metrics = self._tracking.metrics
        metrics.in_flight -= 1
        route = self._request.route
        metrics.requests[route, self.model, status] += 1
        metrics.seconds_of(route, self.model).observe(seconds)
        for direction, count in used.items():
            metrics.tokens[self.model, direction] += count
        if status == 200 and self._pool_model is not None:
            self._learn(self._pool_model, used, now_s)
        if self._recording is not None:
            self._recording.finish(status, used, self._first_byte_s)
        if self._span is not None:
            self._span.end(status, self.model, used)
        if self._tracking.log.wants(status):
            self._tracking.log.note(status, seconds, self._log_fields())

    def _learn(self, model: Model, used: Mapping[str, int], now_s: float) -> None:
        """The queue and the load of the model learn from an answer."""
        if self._queued is not None:
            model.queue.record_usage(self._queued, self._dispatched_s, used)
        model.load.record_response(used, time.monotonic())
        if self._first_byte_s:
            ttft_s = self._first_byte_s - self._started_s
            model.load.record_stream(ttft_s, now_s - self._first_byte_s, used.get("out", 0))

    def _log_fields(self) -> dict[str, str]:
        request = self._request
        return {
            "request_id": request.log_id or request.request_id,
            "route": request.route,
            "model": self.model,
            "tenant": request.tenant,
        }


def status_after(error: BaseException) -> int:
    """The status of a request that ended with ``error``; 499 if it was cancelled."""
    return status_of(gateway_error(error)) if isinstance(error, Exception) else CLIENT_CLOSED
