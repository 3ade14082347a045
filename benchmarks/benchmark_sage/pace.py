"""Runs of a benchmark: one that fails is a row, each is a line, and how long the rest takes."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SHOWN = (
    *("busy", "records_per_s", "requests_per_s", "tokens_per_s", "added_ms_p50", "added_ms_p99"),
    *("decide_ms_p50", "decide_ms_p99", "goodput", "jain", "p99_ms", "ttft_ms_p50", "hit_rate"),
    "start_s",
)


def attempted(measure: Callable[..., dict[str, Any]], *given: object) -> dict[str, Any]:
    """The row, or why there is none: a side that cannot run must not end the others."""
    try:
        return measure(*given)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


class Pace:
    """Knows about how many seconds each run takes, and corrects itself by those that were."""

    def __init__(self, expected_s: Sequence[float]) -> None:
        self._expected_s, self._done = expected_s, 0
        self._began = time.monotonic()
        print(f"{len(expected_s)} runs, about {sum(expected_s) / 60:.0f} minutes", flush=True)

    def tell(self, label: str, row: Mapping[str, Any]) -> None:
        """One run is done."""
        self._done += 1
        figures = "  ".join(f"{name} {row[name]}" for name in SHOWN if name in row)
        left = f"{self.left_s() / 60:.0f} min left"
        print(f"{label} {row.get('error', figures)}  ({left})", flush=True)

    def left_s(self) -> float:
        """About how many seconds the rest takes."""
        spent = sum(self._expected_s[: self._done])
        rate = (time.monotonic() - self._began) / spent if spent else 1.0
        return rate * sum(self._expected_s[self._done :])
