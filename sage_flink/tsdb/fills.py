"""Windows without points, added to the aggregates of the others. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

from sage_flink.common.errors import Rejected
from sage_flink.tsdb.aggregates import Aggregate
from sage_flink.tsdb.functions import Value

Fill = Literal["none", "zero", "previous", "next", "linear"]
FILLS: tuple[Fill, ...] = ("none", "zero", "previous", "next", "linear")
WINDOWS_MAX = 1_000_000


def fill(
    found: Iterable[Aggregate],
    how: Fill,
    every_ns: int,
    start_ns: int,
    stop_ns: int,
    period_ns: int | None = None,
) -> list[Aggregate]:
    """The aggregates with the windows that are missing, group by group.

    The first window is the earliest that holds ``start_ns``, the last begins before ``stop_ns``.
    Windows of ``period_ns`` overlap; those before and after one are the next ones that begin a
    multiple of ``every_ns`` away.

    ``linear`` has no value before the first and after the last window of a group, ``previous``
    none before the first, ``next`` none after the last: those are None. ``none`` is None for all.

    Raises:
        Rejected: there would be more than a million windows, the period is no multiple of
            ``every_ns``, or the aggregates are those of sessions, which have no windows between.
    """
    found = list(found)
    period_ns = every_ns if period_ns is None else period_ns
    if every_ns <= 0 or period_ns <= 0 or period_ns % every_ns:
        raise Rejected(f"fill: period_ns {period_ns} must be a multiple of every_ns {every_ns}")
    if any(one.end_ns is not None for one in found):
        raise Rejected("fill: between the windows of sessions there are none")
    first = (start_ns - period_ns) // every_ns * every_ns + every_ns
    windows = range(first, stop_ns, every_ns)
    groups: dict[tuple[tuple[str, str], ...], dict[int, Aggregate]] = {}
    for one in found:
        groups.setdefault(tuple(sorted(one.tags.items())), {})[one.start_ns] = one
    if -(-(stop_ns - first) // every_ns) * max(1, len(groups)) > WINDOWS_MAX:
        raise Rejected(f"aggregate: more than {WINDOWS_MAX} windows; narrow the range")
    return [one for group in groups.values() for one in _fill_group(group, how, windows)]


def _fill_group(group: Mapping[int, Aggregate], how: Fill, windows: range) -> Iterator[Aggregate]:
    example = next(iter(group.values()))
    known = sorted(group)
    at = 0
    for start_ns in windows:
        while at < len(known) and known[at] < start_ns:
            at += 1
        if start_ns in group:
            yield group[start_ns]
            continue
        before = group[known[at - 1]] if at else None
        after = group[known[at]] if at < len(known) else None
        values = {n: _between(how, n, start_ns, before, after) for n in example.values}
        yield replace(example, start_ns=start_ns, values=values)


def _between(
    how: Fill, name: str, start_ns: int, before: Aggregate | None, after: Aggregate | None
) -> Value:
    if how == "zero":
        return 0
    if how == "previous":
        return before.values[name] if before else None
    if how == "next":
        return after.values[name] if after else None
    if how == "none" or before is None or after is None:
        return None
    a, b = before.values[name], after.values[name]
    if isinstance(a, str | bool | None) or isinstance(b, str | bool | None):
        return None
    share = (start_ns - before.start_ns) / (after.start_ns - before.start_ns)
    return a + (b - a) * share
