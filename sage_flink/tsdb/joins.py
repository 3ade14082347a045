"""Joins of the results of two queries, by time and tags: points with points, or aggregates.

A frame is what :func:`sage_flink.tsdb.to_pandas` makes of each side. A name that both sides have
becomes ``NAME_left`` and ``NAME_right``. A tag of ``by`` that a row lacks is equal to one that
another row lacks, as in the groups of an aggregation. Whole numbers stay whole.

Source: pandas, merge_asof() and merge().
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sage_flink.common.errors import Rejected
from sage_flink.tsdb.aggregates import Aggregate
from sage_flink.tsdb.frames import Results, columns_of, to_pandas

if TYPE_CHECKING:
    import pandas

Direction = Literal["backward", "forward", "nearest"]
DIRECTIONS: tuple[Direction, ...] = ("backward", "forward", "nearest")
How = Literal["inner", "left", "full"]
HOWS: tuple[How, ...] = ("inner", "left", "full")
#: The column of the time of the row of the right side.
TIME_RIGHT = "time_right"
#: Further apart two times have a difference of more than 64 bits.
SPAN_MAX_NS = 2**63 - 1


def join_asof(
    left: Results,
    right: Results,
    *,
    by: Sequence[str] = (),
    direction: Direction = "backward",
    tolerance_ns: int | None = None,
) -> "pandas.DataFrame":
    """Each row of ``left``, by time, with the row of ``right`` that is next to it in time.

    That is the latest one at its time or before (``backward``), the earliest one at its time or
    after (``forward``), or the nearer of the two, the earlier where both are as near
    (``nearest``); of several rows of ``right`` at one time the last, for ``forward`` the first. It
    has the same tags of ``by`` and is at most ``tolerance_ns`` away, this time included; where
    there is none, the columns of ``right`` are null. ``time_right`` is its time.

    Raises:
        Rejected: there is no such direction, the tolerance is negative, a name of ``by`` is a
            field, two columns would have one name, or times are more than 292 years apart.
        ConfigError: pandas or pyarrow is missing; the message names the extra.
    """
    _check_asof(left, right, direction, tolerance_ns)
    sides = _frame(left, by), _frame(right, by)
    if any(TIME_RIGHT in frame.columns for frame in sides):
        raise Rejected(f"join: two columns would be called {TIME_RIGHT!r}")
    import pandas

    within = None if tolerance_ns is None else pandas.Timedelta(min(tolerance_ns, SPAN_MAX_NS))
    one, other = (frame.sort_values("time", kind="stable") for frame in sides)
    joined = _merge(
        pandas.merge_asof,
        one,
        other.rename(columns={"time": TIME_RIGHT}),
        left_on="time",
        right_on=TIME_RIGHT,
        by=list(by) or None,
        direction=direction,
        tolerance=within,
    )
    return _with_missing_tags(joined, by)


def join_windows(
    left: Results, right: Results, *, by: Sequence[str] = (), how: How = "inner"
) -> "pandas.DataFrame":
    """The rows of both sides with equal times and tags of ``by``, ordered by these.

    Windows are equal where their starts are, sessions where their ends are too; windows of two
    lengths are the caller's to avoid. ``left`` keeps also the rows of ``left`` without an equal
    one, ``full`` those of both sides; what is missing is null. Several rows of one side with equal
    times and tags are each joined with all of the other.

    Raises:
        Rejected: there is no such join, sessions meet other windows, a name of ``by`` is a field,
            or two columns would have one name.
        ConfigError: pandas or pyarrow is missing; the message names the extra.
    """
    if how not in HOWS:
        raise Rejected(f"join: how must be {_any_of(HOWS)}, got {how!r:.100}")
    one, other = _frame(left, by), _frame(right, by)
    ends = {end for side in (left, right) if side for end in [_end(side)]}
    if len(ends) > 1:
        raise Rejected(
            "join: sessions have an end and meet sessions only, grouped by the same tags"
        )
    keys = ["time", *by, *(end for end in ends if end)]
    import pandas

    one = one if left else other[keys].iloc[:0]
    other = other if right else one[keys].iloc[:0]
    way = "outer" if how == "full" else how
    joined = _merge(pandas.merge, one, other, on=keys, how=way)
    return _with_missing_tags(joined.sort_values(keys, kind="stable", ignore_index=True), by)


def _check_asof(left: Results, right: Results, direction: str, tolerance_ns: int | None) -> None:
    if direction not in DIRECTIONS:
        raise Rejected(f"join: direction must be {_any_of(DIRECTIONS)}, got {direction!r:.100}")
    if tolerance_ns is not None and tolerance_ns < 0:
        raise Rejected(f"join: tolerance_ns must be 0 or more, got {tolerance_ns}")
    times = [*columns_of(left).times["time"], *columns_of(right).times["time"]]
    if times and max(times) - min(times) > SPAN_MAX_NS:
        raise Rejected("join: times are more than 292 years apart; narrow the range")


def _frame(found: Results, by: Sequence[str]) -> "pandas.DataFrame":
    """The rows, with text in each column of ``by``: pandas joins no missing value with another."""
    if len(set(by)) < len(by):
        raise Rejected("join: a tag is given twice")
    columns, frame = columns_of(found), to_pandas(found)
    for name in by:
        if name in columns.tags:
            frame[name] = frame[name].fillna("")
        elif name in frame.columns or not name:
            raise Rejected(f"join: {name!r:.100} is no tag")
        else:
            frame[name] = ""
            frame[name] = frame[name].astype("string")
    return frame


def _end(found: Results) -> str | None:
    """The name of the column of the ends of sessions."""
    sessions = isinstance(found[0], Aggregate) and found[0].end_ns is not None
    return list(columns_of(found).times)[1] if sessions else None


def _merge(merge: Any, one: Any, other: Any, **options: Any) -> Any:
    """What pandas makes of the frames; two columns of one name are refused."""
    import pandas

    try:
        joined = merge(one, other, suffixes=("_left", "_right"), **options)
    except pandas.errors.MergeError as error:
        raise Rejected(f"join: {error}") from error
    if not joined.columns.is_unique:
        name = joined.columns[joined.columns.duplicated()][0]
        raise Rejected(f"join: two columns would be called {name!r}")
    return joined


def _with_missing_tags(joined: Any, by: Sequence[str]) -> "pandas.DataFrame":
    """The frame with null where a tag of ``by`` is missing."""
    for name in by:
        joined[name] = joined[name].replace("", None)
    return joined


def _any_of(names: Sequence[str]) -> str:
    return ", ".join(names)
