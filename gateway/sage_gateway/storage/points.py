"""Queue of points for the time-series store, written by a thread of its own.

An unreachable store costs points only, never a request: the newest ``WAITING_MAX`` points wait for
it, older ones are dropped and counted.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter

from sage_flink.common import SageError
from sage_flink.tsdb import Bucket, Point, TimeSeriesStore, bucket

log = logging.getLogger("sage.gateway")

BUCKET = bucket("pool")
EVERY_S = 5.0
CLOSE_S = 2.0
WAITING_MAX = 10_000
BATCH_MAX = 1000


class Points:
    """Points for the bucket ``spec``, which is opened with the first point."""

    def __init__(self, spec: Bucket, registry: CollectorRegistry) -> None:
        self._spec = spec
        self._count = Counter(
            "sage_gateway_points",
            "Points for the time-series store by outcome: written, refused, lost",
            ["how"],
            registry=registry,
        )
        self._queue: deque[Point] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="points", daemon=True)
        self._store: TimeSeriesStore | None = None
        self._unavailable = False

    def add(self, points: Iterable[Point]) -> None:
        """Queue the points; never blocks. Call it from the thread of the event loop only."""
        for point in points:
            if len(self._queue) >= WAITING_MAX:
                self._queue.popleft()
                self._count.labels("lost").inc()
            self._queue.append(point)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Write the queued points, within ``CLOSE_S``."""
        self._stop.set()
        self._thread.join(CLOSE_S)

    # The methods below run on the thread.

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._write()
        self._write()
        if self._store is not None:
            self._store.close()

    def _write(self) -> None:
        while batch := [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]:
            try:
                if self._store is None:
                    self._store = self._spec.open()
                refused = self._store.append(batch)
            except SageError as error:
                self._queue.extendleft(reversed(batch))
                self._log_once(error)
                return
            if refused:
                log.warning("%s: %d points refused: %s", self._spec.name, len(refused), refused[0])
            self._count.labels("refused").inc(len(refused))
            self._count.labels("written").inc(len(batch) - len(refused))
            self._unavailable = False

    def _log_once(self, error: SageError) -> None:
        """Log the first error only, until the store is available again."""
        if not self._unavailable:
            log.warning("no points are written to bucket %s: %s", self._spec.name, error)
        self._unavailable = True
