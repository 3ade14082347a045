"""Metrics of ``/metrics``, in a registry of their own: two gateways can run in one process."""

from collections import Counter
from collections.abc import Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sage_gateway.controlplane.pool import Pool
from sage_gateway.replicas.circuit_breaker import Circuit
from sage_gateway.replicas.lifecycle import ReplicaState

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters of the data plane, and the pool's current states.

    ``requests``: by route, model and status. ``tokens``: by model and direction. Both are plain
    numbers: a counter of the library takes 0.5 us.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.registry = CollectorRegistry()
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.tokens: Counter[tuple[str, str]] = Counter()
        seconds = Histogram(
            "sage_gateway_request_seconds",
            "From the whole request to the last byte of the answer",
            ["route", "model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = 0
        in_flight = Gauge(
            "sage_gateway_in_flight", "Requests being answered", registry=self.registry
        )
        in_flight.set_function(lambda: self.in_flight)
        queue_wait = Histogram(
            "sage_gateway_queue_wait_seconds",
            "Time in the queue, of requests that had to wait for a replica",
            ["model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(self)
        # Finding a metric by its labels takes as long as counting, so each is looked up once.
        self.seconds_of = cache(seconds.labels)
        self.queue_wait_of = cache(queue_wait.labels)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The counters; the states of the replicas, the requests at each, and the queues."""
        yield from self._counters()
        yield from self._replicas()
        yield from self._queues()

    def _counters(self) -> Iterator[CounterMetricFamily]:
        requests = CounterMetricFamily(
            "sage_gateway_requests",
            "Requests by route, model and status; not answers of the cache or the ledger",
            labels=["route", "model", "status"],
        )
        tokens = CounterMetricFamily(
            "sage_gateway_tokens", "Tokens that the engines counted", labels=["model", "direction"]
        )
        for (route, model, status), count in list(self.requests.items()):
            requests.add_metric([route, model, str(status)], count)
        for labels, count in list(self.tokens.items()):
            tokens.add_metric(labels, count)
        yield requests
        yield tokens

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
                active = member.breaker.circuit is circuit
                circuits.add_metric([member.replica.name, circuit], active)
        yield states
        yield waiting
        yield limits
        yield restarts
        yield circuits

    def _queues(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        length = GaugeMetricFamily(
            "sage_gateway_queue_length", "Requests in the queue", labels=["model"]
        )
        ended = CounterMetricFamily(
            "sage_gateway_queue_ended",
            "Requests that left the queue, by outcome",
            labels=["model", "outcome"],
        )
        preempted = CounterMetricFamily(
            "sage_gateway_queue_preempted",
            "Preemptions of background requests at a replica",
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
