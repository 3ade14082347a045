"""Points on their way to a time-series bucket: added for nothing, written by a thread of its own.

A store that is away costs its points and nothing else: the newest ``WAITING_MAX`` wait for it, the
others are lost and counted.
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
    """The way to ``spec``, which is opened with the first point."""

    def __init__(self, spec: Bucket, registry: CollectorRegistry) -> None:
        self._spec = spec
        self._count = Counter(
            "sage_gateway_points",
            "Points for the time-series store by what became of them: written, refused, lost",
            ["how"],
            registry=registry,
        )
        self._waiting: deque[Point] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="points", daemon=True)
        self._store: TimeSeriesStore | None = None
        self._away = False

    def add(self, points: Iterable[Point]) -> None:
        """Take the points; returns at once. For the thread that serves."""
        for point in points:
            if len(self._waiting) >= WAITING_MAX:
                self._waiting.popleft()
                self._count.labels("lost").inc()
            self._waiting.append(point)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, for ``CLOSE_S`` at most."""
        self._stop.set()
        self._thread.join(CLOSE_S)

    # From here on: the thread.

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._write()
        self._write()
        if self._store is not None:
            self._store.close()

    def _write(self) -> None:
        while batch := [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]:
            try:
                if self._store is None:
                    self._store = self._spec.open()
                refused = self._store.append(batch)
            except SageError as error:
                self._waiting.extendleft(reversed(batch))
                self._told(error)
                return
            if refused:
                log.warning("%s: %d points refused: %s", self._spec.name, len(refused), refused[0])
            self._count.labels("refused").inc(len(refused))
            self._count.labels("written").inc(len(batch) - len(refused))
            self._away = False

    def _told(self, error: SageError) -> None:
        """Once, until it is back."""
        if not self._away:
            log.warning("no points are written to bucket %s: %s", self._spec.name, error)
        self._away = True
