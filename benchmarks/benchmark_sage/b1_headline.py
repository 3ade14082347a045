"""Headline of B1: ratios of two sides in the same repeat, for each topology.

What runs in the JVM is compared by records a second, because each side has one chain of threads
there; what passes Python by records for a second of CPU time, because the sides divide their work
over different numbers of processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmark_sage.results import Headline

Row = Mapping[str, Any]
#: Side -> topology -> a row for each repeat.
Rows = Mapping[str, Mapping[str, Sequence[Row]]]


class SideComparison(NamedTuple):
    """A side against the best of others by one figure, with the floor of the ratio."""

    side: str
    others: tuple[str, ...]
    figure: str
    metric: str
    floor: float
    moonshot: float
    topologies: tuple[str, ...] = ()


COMPARISONS = (
    SideComparison("sage", ("flink_sql",), "records_per_s", "declared over Flink SQL", 0.8, 1.0),
    SideComparison(
        "sage_python",
        ("flink_sql",),
        "records_per_s",
        "functions in Python over Flink SQL",
        0.1,
        1.0,
        ("sums",),
    ),
    SideComparison(
        "sage_python",
        ("pyflink", "pyflink_cached"),
        "records_per_cpu_s",
        "functions over PyFlink, per core",
        1.5,
        3.0,
    ),
    SideComparison(
        "sage_python",
        ("quix", "bytewax"),
        "records_per_cpu_s",
        "functions over the best of Quix and Bytewax, per core",
        2.0,
        4.0,
    ),
)


def headline(rows: Rows) -> list[Headline]:
    """The ratios of every topology that has at least one repeat without an error."""
    topologies = dict.fromkeys(name for of_side in rows.values() for name in of_side)
    found = []
    for comparison in COMPARISONS:
        for topology in comparison.topologies or topologies:
            values = ratios(rows, comparison, topology)
            if values:
                found.append(
                    Headline.of(
                        f"{topology}: {comparison.metric}",
                        values,
                        unit="ratio",
                        floor=comparison.floor,
                        moonshot=comparison.moonshot,
                    )
                )
    return found


def ratios(rows: Rows, comparison: SideComparison, topology: str) -> list[float]:
    """The side's figure over the best of the others, of repeats in which both have one.

    An other side that failed is left out; without any other side there is no ratio.
    """
    figure, found = comparison.figure, []
    for number, ours in enumerate(rows.get(comparison.side, {}).get(topology, ())):
        others = [rows[name][topology][number] for name in comparison.others if name in rows]
        best = max((other[figure] for other in others if figure in other), default=0)
        if best and figure in ours:
            found.append(ours[figure] / best)
    return found
