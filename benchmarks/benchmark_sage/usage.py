"""CPU and memory usage of processes and their children, sampled while a side runs."""

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, Self

import psutil

EVERY_S = 0.5


class UsageSample(NamedTuple):
    """CPU seconds used until ``at`` (seconds since the epoch), and memory at that time."""

    at: float
    cpu_s: float
    rss_bytes: int


class Usage:
    """Samples ``roots`` and all their descendants until the block ends.

    The CPU time of a process that has ended counts until its last sample.
    """

    def __init__(self, roots: Sequence[psutil.Process]) -> None:
        self._roots = roots
        self._cpu_s: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples: list[UsageSample] = []

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def figures(self, first: float, last: float, records: int) -> dict[str, float]:
        """CPU seconds per 1,000 records and peak memory between ``first`` and ``last``."""
        inside = [s.rss_bytes for s in self.samples if first - EVERY_S <= s.at <= last + EVERY_S]
        used = cpu_at(self.samples, last) - cpu_at(self.samples, first)
        return {
            "cpu_s_per_1000": round(used / records * 1000, 3),
            "rss_mib_peak": round(max(inside, default=0) / 2**20),
        }

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            self._sample()

    def _sample(self) -> None:
        rss = 0
        for process in self._family():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    rss += process.memory_info().rss
            except psutil.Error:
                continue  # it has ended
            self._cpu_s[process.pid] = times.user + times.system
        self.samples.append(UsageSample(time.time(), sum(self._cpu_s.values()), rss))

    def _family(self) -> set[psutil.Process]:
        family: set[psutil.Process] = set()
        for root in self._roots:
            try:
                family |= {root, *root.children(recursive=True)}
            except psutil.NoSuchProcess:
                continue
        return family


def cpu_at(samples: Sequence[UsageSample], at: float) -> float:
    """CPU seconds used until ``at``, interpolated between the samples around it.

    >>> cpu_at([UsageSample(0.0, 1.0, 0), UsageSample(2.0, 3.0, 0)], 1.5)
    2.5
    """
    after = bisect_left([sample.at for sample in samples], at)
    if after == 0 or after == len(samples):
        return samples[min(after, len(samples) - 1)].cpu_s
    left, right = samples[after - 1], samples[after]
    share = (at - left.at) / (right.at - left.at)
    return left.cpu_s + share * (right.cpu_s - left.cpu_s)
