"""B10: the cost of a fault. Workload and record accounting of the drills in ``tests/drills``."""

from benchmark_sage.recovery.accounting import DeliveryCounts, SinkContents, count_deliveries
from benchmark_sage.recovery.workload import Workload, build, event, events, expected_answer

__all__ = [
    "DeliveryCounts",
    "SinkContents",
    "Workload",
    "build",
    "count_deliveries",
    "event",
    "events",
    "expected_answer",
]
