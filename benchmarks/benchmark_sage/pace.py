"""Progress of a benchmark: one printed line per run, and the estimated time left."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SHOWN = (
    *(
        "busy",
        "records_per_s",
        "records_per_cpu_s",
        "documents_per_s",
        "requests_per_s",
        "tokens_per_s",
        "added_ms_p50",
        "added_ms_p99",
    ),
    *("points_per_s", "points_per_cpu_s", "lost", "duplicated"),
    *("searches_per_s", "ms_p50", "ms_p99", "recall"),
    *("decide_ms_p50", "decide_ms_p99", "goodput", "jain", "p99_ms", "ttft_ms_p50", "hit_rate"),
    "start_s",
)


def attempt(measure: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """The row of a run, or its error as a row: a side that fails must not end the others."""
    try:
        return measure(*arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


class Pace:
    """Estimate of the remaining time, corrected by the runs that are done."""

    def __init__(self, expected_s: Sequence[float]) -> None:
        self._expected_s, self._done = expected_s, 0
        self._began = time.monotonic()
        print(f"{len(expected_s)} runs, about {sum(expected_s) / 60:.0f} minutes", flush=True)

    def report(self, label: str, row: Mapping[str, Any]) -> None:
        """Print the line of a finished run."""
        self._done += 1
        figures = "  ".join(f"{name} {row[name]}" for name in SHOWN if name in row)
        remaining = f"{self.remaining_s() / 60:.0f} min left"
        print(f"{label} {row.get('error', figures)}  ({remaining})", flush=True)

    def remaining_s(self) -> float:
        """The estimated seconds of the remaining runs."""
        spent = sum(self._expected_s[: self._done])
        rate = (time.monotonic() - self._began) / spent if spent else 1.0
        return rate * sum(self._expected_s[self._done :])
