"""Minutes at full load: memory, threads and file descriptors do not grow."""

import statistics
import threading
import time

import psutil
import pytest

SAMPLE_S = 2.0


@pytest.mark.full
def test_a_soak_leaves_memory_threads_and_files_flat(run, cluster, request, full):
    seconds = 300.0 if full else 150.0
    rate = request.config.getoption("--drill-rate", 120.0)
    samples = []

    def fault(running):
        """No fault: only the usage of the processes is sampled."""

    sampler = Sampler(cluster, samples)
    with sampler:
        outcome = run(fault, name="soak", ids=int(seconds * rate), rate=rate)

    kept = summary(samples)
    request.config.drill_rows[-1][1].update(kept)
    print(kept)
    assert outcome.is_balanced, outcome
    assert kept["rss_growth"] <= 0.05, kept
    assert kept["threads_growth"] <= 2, kept
    assert kept["files_growth"] <= 8, kept


class Sampler(threading.Thread):
    """Samples (seconds, RSS, threads, open files) of the TaskManager and its Python workers."""

    def __init__(self, cluster, samples):
        super().__init__(daemon=True)
        self.cluster, self.samples, self.ended = cluster, samples, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join(30)

    def run(self):
        began = time.monotonic()
        while not self.ended.wait(SAMPLE_S):
            used = [one for one in map(usage, self.cluster.processes("taskmanager")) if one]
            if used:
                self.samples.append((time.monotonic() - began, *map(sum, zip(*used, strict=True))))


def usage(process):
    try:
        return process.memory_info().rss, process.num_threads(), process.num_fds()
    except psutil.Error:
        return None


def summary(samples):
    """Growth from the second fifth of the run to its last; the slope is only reported.

    The first fifth is warm-up: workers start, the JVM allocates its heap.
    """
    fifth = len(samples) // 5
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    rss, threads, files = (
        tuple(statistics.median(s[i] for s in part) for part in (early, late)) for i in (1, 2, 3)
    )
    warm = samples[fifth:]
    slope = statistics.linear_regression([s[0] for s in warm], [s[1] for s in warm]).slope
    return {
        "rss_mib": round(rss[1] / 2**20),
        "rss_growth": round(rss[1] / rss[0] - 1, 4),
        "rss_slope_percent_per_hour": round(slope * 3600 / rss[0] * 100, 2),
        "threads_growth": threads[1] - threads[0],
        "files_growth": files[1] - files[0],
    }
