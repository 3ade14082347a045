"""Result file of B10, built from the rows of all drills."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmark_sage.results import Headline, commit, result

Row = tuple[str, dict[str, Any]]
#: Faults after which output must resume within 30 s, however long the server itself needs.
PROCESSES = ("taskmanager", "python_worker", "jobmanager")


def save_rows(folder: Path, rows: Sequence[Row], *, repeats: int, seed: int) -> Path:
    """Write B10's result into ``folder``: one side per drill, with every repeat.

    The drills take hours, so results of earlier runs stay unless a drill ran again; each row names
    the commit that it ran at.
    """
    sides = earlier(folder / "B10.json") | {name: [] for name, _ in rows}
    at = commit()
    for name, row in rows:
        sides[name].append({**row, "commit": at})
    every = [(name, row) for name, found in sides.items() for row in found]
    made = result(
        "B10", seed=seed, repeats=repeats, sides=dict(sides), headline=list(headlines(every))
    )
    return made.save(folder)


def earlier(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The sides of the result file in ``path``; empty when the file does not exist."""
    if not path.exists():
        return {}
    saved = msgspec.json.decode(path.read_bytes())
    return {
        name: [{"commit": saved["commit"], **row} for row in rows]
        for name, rows in saved["sides"].items()
    }


def headlines(rows: Sequence[Row]) -> list[Headline]:
    """The headline figures of B10; lower is better for all of them."""
    own = [(name, row) for name, row in rows if not name.startswith("peer")]
    wanted: dict[str, tuple[list[float], float, float]] = {
        "ids lost, all drills": ([row["lost"] for _, row in own if "lost" in row], 0, 0),
        "rows or dead letters duplicated, all drills": (
            [row["duplicated"] for _, row in own if "duplicated" in row],
            0,
            0,
        ),
        "seconds to first output after kill -9 of a Flink process": (
            [
                row["first_output_s"]
                for name, row in own
                if any(process in name for process in PROCESSES) and row.get("first_output_s")
            ],
            30,
            10,
        ),
        "calls made over ids, kill -9 of a Flink process": (
            [row["calls_per_id"] for name, row in own if any(p in name for p in PROCESSES)],
            1.2,
            1.05,
        ),
        "failures seen by clients of the pool": (
            [row["failures"] for _, row in own if "failures" in row],
            0,
            0,
        ),
        "seconds until one broken engine of two gets no more requests": (
            [row["ejected_s"] for _, row in own if "ejected_s" in row],
            2,
            1,
        ),
    }
    return [
        Headline.worst(metric, values, unit="ratio" if "over" in metric else "", **_limits(*at))
        for metric, (values, *at) in wanted.items()
        if values
    ]


def _limits(floor: float, moonshot: float) -> dict[str, float]:
    return {"floor": floor, "moonshot": moonshot}
