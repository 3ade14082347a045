"""Approximate aggregates by Apache DataSketches, as the native ones make them on Flink. Pure.

Both targets use the same algorithms and parameters, in the two implementations of one project. The
KLL sketch draws random bits, and Java counts hashes of its own for frequent items, so that results
of the two agree within the bounds that the aggregates state, those of HLL exactly.
"""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

#: The parameter k of KLL; up to this many numbers are kept as they are.
KLL_K = 800
_HLL_LG_K = 12
_TOP_LG_SIZE = 10
#: The frequent items sketch keeps at most this many different values.
TOP_VALUES_MAX = 768


def sketched_quantile(numbers: Sequence[float], q: float) -> float:
    """A number whose rank is near ``q``; of more than KLL_K numbers."""
    if q in (0, 1):  # which this implementation approximates, and Java's does not
        return float(max(numbers) if q else min(numbers))
    sketch = _library().kll_doubles_sketch(KLL_K)
    for number in numbers:
        sketch.update(float(number))
    return float(sketch.get_quantile(q, True))


def sketched_count(values: Iterable[bytes]) -> int:
    """About how many different values there are."""
    library = _library()
    sketch = library.hll_sketch(_HLL_LG_K, library.tgt_hll_type.HLL_4)
    for value in values:
        sketch.update(value.decode("latin-1"))
    return int(sketch.get_estimate() + 0.5)


def sketched_top(values: Iterable[bytes], k: int) -> list[tuple[bytes, int]]:
    """The ``k`` most frequent values with about their counts, the most frequent first."""
    library = _library()
    sketch = library.frequent_strings_sketch(_TOP_LG_SIZE)
    for value in values:
        sketch.update(value.decode("latin-1"))
    rows = sketch.get_frequent_items(library.frequent_items_error_type.NO_FALSE_NEGATIVES)
    found = [(item.encode("latin-1"), int(estimate)) for item, estimate, *_ in rows]
    return sorted(found, key=lambda row: (-row[1], row[0]))[:k]


def sketches_flaw() -> str:
    """Why this process has no sketches; empty where it has."""
    if find_spec("datasketches") is not None:
        return ""
    return "approximate aggregates need Apache DataSketches: pip install 'sage-flink[sketches]'"


def _library() -> Any:
    import datasketches  # an optional package, whose absence a check has found

    return datasketches
