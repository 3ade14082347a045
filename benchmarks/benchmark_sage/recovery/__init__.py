"""B10: what a fault costs. The workload and the accounting of the drills in ``tests/drills``."""

from benchmark_sage.recovery.accounting import Account, Seen, account
from benchmark_sage.recovery.workload import Workload, answer_of, build, event, events

__all__ = ["Account", "Seen", "Workload", "account", "answer_of", "build", "event", "events"]
