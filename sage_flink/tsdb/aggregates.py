"""Aggregates of a series in windows, grouped by tags: what they mean, for every store. Pure.

>>> rows = [Row(t * 10, {"host": "a"}, float(t)) for t in range(4)]
>>> for found in aggregate(rows, Aggregation(("count", "mean"), every_ns=20)):
...     print(found.start_ns, found.values)
0 {'count': 2, 'mean': 0.5}
20 {'count': 2, 'mean': 2.5}

Windows begin at multiples of ``every_ns`` since the epoch, before 1970 too; one without points is
left out, and :func:`sage_flink.tsdb.fill` adds it. Sessions are those of
:class:`sage_flink.flow.Session`: a window of a group ends ``session_gap_ns`` after its last point,
and a point at this very time is part of it still.

>>> for found in aggregate(rows[:2] + rows[3:], Aggregation(("count",), session_gap_ns=10)):
...     print(found.start_ns, found.end_ns, found.values)
0 20 {'count': 2}
30 40 {'count': 1}

Source: Flux, aggregateWindow(); pandas, resample(); Flink, EventTimeSessionWindows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import NamedTuple

from sage_flink.common.errors import Rejected
from sage_flink.tsdb.functions import (
    FUNCTIONS,
    OF_ANY,
    SERIES_FUNCTIONS,
    Timed,
    Value,
    compute,
    compute_by_series,
    is_known,
)
from sage_flink.tsdb.time_series_store import Field

#: The tags of ``by`` that a group has, and the start of a window.
Group = tuple[tuple[tuple[str, str], ...], int]
OVERLAP_MAX = 1_000


class Row(NamedTuple):
    """One value of a field."""

    time_ns: int
    tags: Mapping[str, str]
    value: Field


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What is computed: ``functions`` of the values in each window of each group of ``by``.

    Without ``every_ns`` there is one window, the whole range. Windows overlap where ``period_ns``
    is a multiple of it. With ``session_gap_ns`` in their place, the windows of a group are where
    its points are: one ends where there is no point for longer than the gap.

    Raises:
        Rejected: there is no such function, the period is no multiple, or windows have a length
            and a gap.
    """

    functions: tuple[str, ...]
    every_ns: int | None = None
    period_ns: int | None = None
    by: tuple[str, ...] = ()
    session_gap_ns: int | None = None

    def __post_init__(self) -> None:
        if not self.functions:
            raise Rejected("aggregate: give a function or more, such as 'mean'")
        if len(set(self.functions)) < len(self.functions) or len(set(self.by)) < len(self.by):
            raise Rejected("aggregate: a function or a tag is given twice")
        if own := [name for name in self.by if not name or name.startswith("_")]:
            raise Rejected(f"aggregate: {own[0]!r:.100} is no tag")
        if unknown := [name for name in self.functions if not is_known(name)]:
            known = ", ".join((*FUNCTIONS, *SERIES_FUNCTIONS))
            raise Rejected(f"aggregate: no function {unknown[0]!r:.100}; there are {known} and p99")
        self._check_windows()

    def _check_windows(self) -> None:
        if self.every_ns is not None and self.every_ns <= 0:
            raise Rejected(f"aggregate: every_ns must be positive, got {self.every_ns}")
        if self.period_ns is not None and (
            self.every_ns is None or self.period_ns <= 0 or self.period_ns % self.every_ns
        ):
            raise Rejected(
                f"aggregate: period_ns must be a multiple of every_ns {self.every_ns}, "
                f"got {self.period_ns}"
            )
        if len(self.offsets_ns) > OVERLAP_MAX:
            raise Rejected(f"aggregate: a time is in at most {OVERLAP_MAX} windows")
        if self.session_gap_ns is None:
            return
        if self.session_gap_ns <= 0:
            raise Rejected(f"aggregate: session_gap_ns must be positive, got {self.session_gap_ns}")
        if self.every_ns is not None:
            raise Rejected("aggregate: give every_ns or session_gap_ns; sessions have no length")

    @property
    def offsets_ns(self) -> Sequence[int]:
        """Where the first of the windows begin that do not overlap each other."""
        if self.every_ns is None or self.period_ns is None:
            return (0,)
        return range(0, self.period_ns, self.every_ns)

    @property
    def length_ns(self) -> int | None:
        """How long a window is."""
        return self.period_ns or self.every_ns

    def start_of(self, time_ns: int, offset_ns: int) -> int:
        """The start of the window of a time, among those that begin at the offset."""
        assert self.length_ns is not None
        return (time_ns - offset_ns) // self.length_ns * self.length_ns + offset_ns

    def group_of(self, tags: Mapping[str, str], start_ns: int) -> Group:
        """The group of a series, in a window; a tag that is absent is no part of it."""
        return tuple((name, tags[name]) for name in self.by if tags.get(name)), start_ns

    def check_type(self, kind: type | None, where: str) -> None:
        """Raise Rejected where a function needs numbers and the field has another type."""
        for name in self.functions:
            if kind in {str, bool} and name not in OF_ANY:
                raise Rejected(f"aggregate: {name} needs numbers; {where} is {kind.__name__}")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The values of one window of one group: ``tags`` are those of ``by`` that the group has.

    ``end_ns`` is the end of a session, its last point and the gap; None for any other window.
    """

    tags: dict[str, str]
    start_ns: int
    values: dict[str, Value]
    end_ns: int | None = None


def aggregate(rows: Iterable[Row], wanted: Aggregation, range_start_ns: int = 0) -> list[Aggregate]:
    """The aggregates, by group and window; one window of all rows begins at ``range_start_ns``."""
    gap_ns = wanted.session_gap_ns
    groups = dict(_sessions(rows, wanted, gap_ns)) if gap_ns else _groups(rows, wanted)
    single = wanted.every_ns is None and gap_ns is None
    return [
        Aggregate(
            dict(tags),
            range_start_ns if single else start_ns,
            _values(found, wanted.functions),
            max(row.time_ns for row in found) + gap_ns if gap_ns else None,
        )
        for (tags, start_ns), found in sorted(groups.items(), key=itemgetter(0))
    ]


def _groups(rows: Iterable[Row], wanted: Aggregation) -> dict[Group, list[Row]]:
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        for offset_ns in wanted.offsets_ns:
            start_ns = 0 if wanted.every_ns is None else wanted.start_of(row.time_ns, offset_ns)
            groups.setdefault(wanted.group_of(row.tags, start_ns), []).append(row)
    return groups


def _sessions(
    rows: Iterable[Row], wanted: Aggregation, gap_ns: int
) -> Iterator[tuple[Group, list[Row]]]:
    """The rows of each session of each group, in order of time."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(wanted.group_of(row.tags, 0), []).append(row)
    for (tags, _), found in groups.items():
        found.sort(key=attrgetter("time_ns"))
        first = 0
        for at, row in enumerate(found):
            if at + 1 == len(found) or found[at + 1].time_ns - row.time_ns > gap_ns:
                yield (tags, found[first].time_ns), found[first : at + 1]
                first = at + 1


def _values(found: Sequence[Row], functions: Iterable[str]) -> dict[str, Value]:
    timed = [(row.time_ns, row.value) for row in found]
    series: dict[tuple[tuple[str, str], ...], list[Timed]] = {}
    if not SERIES_FUNCTIONS.keys().isdisjoint(functions):
        for row, pair in zip(found, timed, strict=True):
            series.setdefault(tuple(sorted(row.tags.items())), []).append(pair)
    return {
        name: compute_by_series(name, series.values())
        if name in SERIES_FUNCTIONS
        else compute(name, timed)
        for name in functions
    }
