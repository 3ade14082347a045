"""What ``/metrics`` shows of the ledger."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sage_gateway.idempotency.store_protocol import Store

WRITE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
CALLS = (
    "asked",  # the engine, under an id that was new
    "hit",
    "joined",
    "refused",  # the id belongs to another body
    "passed",  # around the ledger: it was away, or the running answer is too large to keep
)


class Counts:
    """Counters of all that is answered once; sizes are read from the stores when asked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        calls = Counter(
            "sage_gateway_ledger_calls",
            "Requests with an id, by what became of them",
            ["outcome"],
            registry=registry,
        )
        self.calls = {outcome: calls.labels(outcome) for outcome in CALLS}
        self.records = Counter("sage_gateway_ledger_records", "Answers recorded", registry=registry)
        self.unfit = Counter(
            "sage_gateway_ledger_unfit",
            "Answers with status 200 that were not recorded: too large, or no finished answer",
            registry=registry,
        )
        self.errors = Counter(
            "sage_gateway_ledger_errors",
            "Times that the store was away, full, locked or slow",
            registry=registry,
        )
        self.write_seconds = Histogram(
            "sage_gateway_ledger_write_seconds",
            "What recording adds to an answer",
            buckets=WRITE_SECONDS,
            registry=registry,
        )
        self.orphans = Gauge(
            "sage_gateway_ledger_orphans",
            "Calls that go on though everybody hung up",
            registry=registry,
        )
        self.aborted = Counter(
            "sage_gateway_ledger_orphans_aborted",
            "Calls that everybody left and that were aborted: grace over, or no room for one more",
            registry=registry,
        )
        self.stores: dict[str, Store] = {}
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Bytes and evictions by what is kept there."""
        held = GaugeMetricFamily(
            "sage_gateway_ledger_bytes", "Bytes of the answers kept", labels=["kept"]
        )
        evicted = CounterMetricFamily(
            "sage_gateway_ledger_evictions", "Answers dropped by size or age", labels=["kept"]
        )
        for kept, store in self.stores.items():
            held.add_metric([kept], store.bytes_held)
            evicted.add_metric([kept], store.evicted)
        yield held
        yield evicted
