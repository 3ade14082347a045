"""What ``/metrics`` shows; a registry of its own, so that two gateways can live in one process."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sage_gateway.controlplane.pool import Pool
from sage_gateway.models.load import Load
from sage_gateway.observability.logs import RequestLog
from sage_gateway.observability.tracing import Traced
from sage_gateway.replay.recorder import RequestRecording
from sage_gateway.replicas.circuit_breaker import Circuit
from sage_gateway.replicas.lifecycle import ReplicaState

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters of the data plane, and the pool's states as they are when asked."""

    def __init__(self, pool: Pool, requests: RequestLog | None = None) -> None:
        self._pool = pool
        self.log = requests or RequestLog()
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sage_gateway_requests",
            "Requests by how they ended",
            ["route", "model", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "sage_gateway_request_seconds",
            "From the whole request to the last byte of the answer",
            ["route", "model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "sage_gateway_in_flight", "Requests being answered", registry=self.registry
        )
        self.tokens = Counter(
            "sage_gateway_tokens",
            "Tokens that the engines counted",
            ["model", "direction"],
            registry=self.registry,
        )
        self.queue_wait = Histogram(
            "sage_gateway_queue_wait_seconds",
            "How long a request waited for a replica with room; those that did not are not counted",
            ["model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(self)
        # To find a metric by its labels costs as much as to count: found once, there are few.
        self.ended = cache(self._ended)
        self.counted = cache(self.tokens.labels)

    def _ended(self, route: str, model: str, status: int) -> tuple[Counter, Histogram]:
        requests = self.requests.labels(route, model, str(status))
        return requests, self.seconds.labels(route, model)

    def begin(self, route: str) -> "Watch":
        """A request has come."""
        self.in_flight.inc()
        return Watch(self, route)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The states of the replicas, the requests at each, and who waits for them."""
        yield from self._replicas()
        yield from self._queues()

    def _replicas(self) -> Iterator[GaugeMetricFamily]:
        states = GaugeMetricFamily(
            "sage_gateway_replicas", "Replicas by state", labels=["model", "state"]
        )
        waiting = GaugeMetricFamily(
            "sage_gateway_replica_in_flight", "Requests at a replica", labels=["model", "replica"]
        )
        limits = GaugeMetricFamily(
            "sage_gateway_replica_concurrency",
            "Requests that a replica takes at a time",
            labels=["model", "replica"],
        )
        restarts = GaugeMetricFamily(
            "sage_gateway_replica_restarts", "Failures since it was last stable", labels=["replica"]
        )
        circuits = GaugeMetricFamily(
            "sage_gateway_replica_circuit",
            "1 for the state of a replica's circuit breaker, 0 for the others",
            labels=["replica", "circuit"],
        )
        for name, model in self._pool.models.items():
            now = [m.replica.state for m in model.replica_slots]
            for state in ReplicaState:
                states.add_metric([name, state], now.count(state))
        for model, member in self._pool.replica_slots():
            waiting.add_metric([model.name, member.replica.name], member.in_flight)
            limits.add_metric([model.name, member.replica.name], member.concurrency)
            restarts.add_metric([member.replica.name], member.replica.restarts)
            for circuit in Circuit:
                stands = member.breaker.circuit is circuit
                circuits.add_metric([member.replica.name, circuit], stands)
        yield states
        yield waiting
        yield limits
        yield restarts
        yield circuits

    def _queues(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        length = GaugeMetricFamily(
            "sage_gateway_queue_length", "Requests that wait for a replica", labels=["model"]
        )
        ended = CounterMetricFamily(
            "sage_gateway_queue_ended",
            "Requests that left the queue, by outcome",
            labels=["model", "outcome"],
        )
        preempted = CounterMetricFamily(
            "sage_gateway_queue_preempted",
            "Times that a background request at a replica gave way to one that waited",
            labels=["model"],
        )
        for name, model in self._pool.models.items():
            preempted.add_metric([name], model.queue.preemptible.preempted)
            length.add_metric([name], len(model.queue))
            for outcome, count in model.queue.outcomes.items():
                ended.add_metric([name, outcome], count)
        yield length
        yield ended
        yield preempted

    def page(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class Watch:
    """One request's account; ``end`` closes it once. ``model`` is a known one or ``-``.

    ``settle`` is told what the engine counted, of a request that was answered; ``load`` is that of
    the model in the pool, ``taken`` what is recorded of it, ``traced`` its span.
    """

    __slots__ = (
        "_begun",
        "_first",
        "_metrics",
        "_open",
        "_route",
        "load",
        "model",
        "request_id",
        "settle",
        "taken",
        "tenant",
        "traced",
    )

    def __init__(self, metrics: Metrics, route: str) -> None:
        self._metrics = metrics
        self._route = route
        self._begun = time.perf_counter()
        self._first = 0.0
        self._open = True
        self.model = "-"
        self.request_id = self.tenant = ""
        self.load: Load | None = None
        self.taken: RequestRecording | None = None
        self.traced: Traced | None = None
        self.settle: Callable[[Mapping[str, int]], None] | None = None

    @property
    def traceparent(self) -> str:
        """What is told to those whom it asks; empty when it is not sampled."""
        return self.traced.traceparent if self.traced else ""

    def began(self) -> None:
        """The first bytes of a stream are there."""
        self._first = time.perf_counter()
        if self.traced is not None:
            self.traced.began()

    def end(self, status: int, tokens: Mapping[str, int] | None = None) -> None:
        """The request is over; 499 means that the caller hung up."""
        if not self._open:
            return
        self._open = False
        seconds = time.perf_counter() - self._begun
        self._metrics.in_flight.dec()
        requests, histogram = self._metrics.ended(self._route, self.model, status)
        requests.inc()
        histogram.observe(seconds)
        for direction, count in (tokens or {}).items():
            self._metrics.counted(self.model, direction).inc(count)
        if status == 200:
            self._answered(tokens or {}, seconds)
        if self.taken is not None:
            self.taken.finish(status, tokens or {}, self._first)
        if self.traced is not None:
            self.traced.end(status, self.model, tokens or {})
        if self._metrics.log.wants(status):
            self._metrics.log.note(status, seconds, self._fields())

    def _fields(self) -> dict[str, str]:
        return {
            "request_id": self.request_id,
            "route": self._route,
            "model": self.model,
            "tenant": self.tenant,
        }

    def _answered(self, used: Mapping[str, int], seconds: float) -> None:
        if self.settle is not None:
            self.settle(used)
        if self.load is not None:
            self.load.record_response(used, time.monotonic())
            if self._first:
                ttft_s = self._first - self._begun
                self.load.record_stream(ttft_s, seconds - ttft_s, used.get("out", 0))
