"""Metrics of the idempotency stores and their calls.

The metrics keep the user-facing name, generation ledger, in ``sage_gateway_ledger_*``.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sage_gateway.idempotency.store_protocol import IdempotencyStore

WRITE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
OUTCOMES = (
    "dispatched",  # to an engine: the id was new
    "replayed",  # from the store; the client sees ``x-sage-ledger: hit``
    "coalesced",  # with a call in flight; the client sees ``x-sage-ledger: joined``
    "refused",  # the id belongs to another body
    "bypassed",  # the store was unavailable, or the answer in flight is too large to record
)


class IdempotencyMetrics:
    """Counters of the calls with an id; the sizes of the stores are read at each scrape.

    ``calls``, by outcome, and ``records`` are plain numbers: a counter of the library takes 0.5 us.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = dict.fromkeys(OUTCOMES, 0)
        self.records = 0
        self.unfit = Counter(
            "sage_gateway_ledger_unfit",
            "Answers with status 200 that were not recorded: too large, or incomplete",
            registry=registry,
        )
        self.errors = Counter(
            "sage_gateway_ledger_errors",
            "Errors of the store: unavailable, full, locked or slow",
            registry=registry,
        )
        self.write_seconds = Histogram(
            "sage_gateway_ledger_write_seconds",
            "Seconds that recording adds to an answer",
            buckets=WRITE_SECONDS,
            registry=registry,
        )
        self.detached = Gauge(
            "sage_gateway_ledger_detached",
            "Calls in flight whose clients have all disconnected",
            registry=registry,
        )
        self.aborted = Counter(
            "sage_gateway_ledger_detached_aborted",
            "Detached calls that were aborted: after their grace time, or above the limit",
            registry=registry,
        )
        self.stores: dict[str, IdempotencyStore] = {}
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Calls and records; bytes and evictions by store."""
        calls = CounterMetricFamily(
            "sage_gateway_ledger_calls", "Requests with an id, by outcome", labels=["outcome"]
        )
        for outcome, count in self.calls.items():
            calls.add_metric([outcome], count)
        yield calls
        yield CounterMetricFamily("sage_gateway_ledger_records", "Answers recorded", self.records)
        stored = GaugeMetricFamily(
            "sage_gateway_ledger_bytes", "Bytes of the recorded answers", labels=["store"]
        )
        evicted = CounterMetricFamily(
            "sage_gateway_ledger_evictions", "Answers evicted by size or age", labels=["store"]
        )
        for name, store in self.stores.items():
            stored.add_metric([name], store.bytes_held)
            evicted.add_metric([name], store.evictions)
        yield stored
        yield evicted
