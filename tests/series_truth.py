"""What DuckDB makes of points: aggregates in windows and sessions, and joins of two series."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb_session
import pyarrow
import pytest

from sage_flink.tsdb import Aggregate, Aggregation, Point

SECOND = 1_000_000_000
#: The tags that points of these tests have, or lack.
TAGS = ("disk", "host")
AGGREGATES = {
    "count": "count(*)",
    "sum": "sum(v)",
    "mean": "avg(v)",
    "min": "min(v)",
    "max": "max(v)",
    "spread": "max(v) - min(v)",
    "first": "first(v ORDER BY t, v)",
    "last": "last(v ORDER BY t, v)",
    "stddev": "CASE WHEN count(*) > 1 THEN stddev_samp(v::DOUBLE) END",
    "median": "quantile_cont(v::DOUBLE, 0.5)",
    "p50": "quantile_cont(v::DOUBLE, 0.5)",
    "p99": "quantile_cont(v::DOUBLE, 0.99)",
    "p99.9": "quantile_cont(v::DOUBLE, 0.999)",
}
RATES = ("rate", "derivative")
Window = tuple[tuple[tuple[str, str], ...], int]


def points_table(points: Iterable[Point], field: str) -> pyarrow.Table:
    """The points as a store keeps them: time ``t``, value ``v``, a column for each of TAGS."""
    kept = list({point.identity: point for point in points}.values())
    columns: dict[str, list[Any]] = {
        "t": [point.timestamp_ns for point in kept],
        "v": [point.fields[field] for point in kept],
    }
    return pyarrow.table(columns | {tag: [p.tags.get(tag, "") for p in kept] for tag in TAGS})


def aggregates(points: pyarrow.Table, wanted: Aggregation) -> dict[Window, dict[str, Any]]:
    """The values of each window of each group, and its end, ``end_ns``, where it is a session."""
    keys = ", ".join([*wanted.by, "start"])
    names = [f'{AGGREGATES[n]} AS "{n}"' for n in wanted.functions if n in AGGREGATES]
    rates = [f'sum("{name}") AS "{name}"' for name in RATES]
    with duckdb_session.session() as session:
        session.register("points", points)
        whole = points.schema.field("v").type == pyarrow.int64()
        session.execute(f"CREATE TEMP TABLE windowed AS {_windowed(wanted, whole)}")
        found = session.execute(f"""
            WITH steps AS (
                SELECT *, lag(v) OVER (PARTITION BY disk, host, start ORDER BY t) AS before
                FROM windowed
            ), series AS (
                SELECT disk, host, start, (max(t) - min(t)) / 1e9 AS seconds,
                    sum(CASE WHEN before IS NULL THEN 0 WHEN v >= before THEN v - before
                        ELSE greatest(v, 0) END)::DOUBLE / nullif(seconds, 0) AS rate,
                    (arg_max(v, t) - arg_min(v, t))::DOUBLE / nullif(seconds, 0) AS derivative
                FROM steps GROUP BY disk, host, start
            ), rates AS (SELECT {keys}, {", ".join(rates)} FROM series GROUP BY {keys}),
            others AS (
                SELECT {keys}, max(t) AS latest, {", ".join(names) or "1 AS none"}
                FROM windowed GROUP BY {keys}
            )
            SELECT * FROM others JOIN rates USING ({keys})
        """)
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return {_window(row, wanted): _values(row, wanted) for row in rows}


def _windowed(wanted: Aggregation, whole: bool) -> str:
    """The points with the start of each of their windows; whole numbers of 128 bits."""
    value = "* REPLACE (v::HUGEINT AS v)" if whole else "*"
    if wanted.session_gap_ns is not None:
        one = f"PARTITION BY {', '.join([*wanted.by, 'true'])}"
        return f"""
            WITH marked AS (
                SELECT {value}, coalesce(t - lag(t) OVER ({one} ORDER BY t)
                    > {wanted.session_gap_ns}, false) AS starts FROM points
            ), numbered AS (
                SELECT *, count_if(starts) OVER ({one} ORDER BY t) AS session FROM marked
            )
            SELECT *, min(t) OVER ({one}, session) AS start FROM numbered"""
    if wanted.length_ns is None:
        return f"SELECT {value}, 0 AS start FROM points"
    length = wanted.length_ns
    starts = f"t - o.n - (((t - o.n) % {length}) + {length}) % {length} + o.n"
    offsets = ", ".join(map(str, wanted.offsets_ns))
    return f"SELECT {value}, {starts} AS start FROM points, unnest([{offsets}]) AS o(n)"


def _window(row: Mapping[str, Any], wanted: Aggregation) -> Window:
    return tuple((tag, row[tag]) for tag in sorted(wanted.by) if row[tag]), row["start"]


def _values(row: Mapping[str, Any], wanted: Aggregation) -> dict[str, Any]:
    gap_ns = wanted.session_gap_ns
    end_ns = None if gap_ns is None else row["latest"] + gap_ns
    return {name: row[name] for name in wanted.functions} | {"end_ns": end_ns}


def assert_equal(
    found: Sequence[Aggregate], expected: Mapping[Window, Mapping[str, Any]], wanted: Aggregation
) -> None:
    """Check that the aggregates are these, in order, numbers within 1e-9."""
    got = {(tuple(sorted(one.tags.items())), one.start_ns): one for one in found}

    assert got.keys() == expected.keys()
    assert len(got) == len(found)
    for window, one in got.items():
        assert list(one.values) == list(wanted.functions)
        assert one.end_ns == expected[window]["end_ns"]
        for name, value in one.values.items():
            other = expected[window][name]
            if other is not None:
                other = pytest.approx(float(other), rel=1e-9, abs=1e-9)
            assert value == other, (window, name)


def side(points: Sequence[Point], field: str = "v") -> pyarrow.Table:
    """One side of a join: the place of each point in the list, its time, value and tags."""
    columns: dict[str, list[Any]] = {
        "place": list(range(len(points))),
        "t": [point.timestamp_ns for point in points],
        "v": [point.fields[field] for point in points],
    }
    types = {"place": pyarrow.int64(), "t": pyarrow.int64(), "v": pyarrow.int64()}
    columns |= {tag: [point.tags.get(tag, "") for point in points] for tag in TAGS}
    arrays = {n: pyarrow.array(v, types.get(n, pyarrow.string())) for n, v in columns.items()}
    return pyarrow.table(arrays)


#: Which row of the right side is chosen first.
NEAREST = "abs(r.t::HUGEINT - l.t), r.t"
CHOICE = {
    "backward": ("r.t <= l.t", "r.t DESC, r.place DESC"),
    "forward": ("r.t >= l.t", "r.t, r.place"),
    "nearest": ("true", f"{NEAREST}, CASE WHEN r.t <= l.t THEN -r.place ELSE r.place END"),
}


def joined_asof(
    left: pyarrow.Table,
    right: pyarrow.Table,
    by: Sequence[str],
    direction: str,
    tolerance_ns: int | None,
) -> list[tuple[int, int | None, int | None]]:
    """For each row of the left side its value, and the value and time of the right one."""
    condition, order = CHOICE[direction]
    equal = [f"l.{tag} = r.{tag}" for tag in by]
    if tolerance_ns is not None:
        equal.append(f"abs(r.t::HUGEINT - l.t) <= {tolerance_ns}")
    return _joined(
        left,
        right,
        f"""SELECT l.v, r.v, r.t FROM l LEFT JOIN r ON {" AND ".join([condition, *equal])}
            QUALIFY row_number() OVER (PARTITION BY l.place ORDER BY {order}) = 1
            ORDER BY l.t, l.place""",
    )


def joined_windows(
    left: pyarrow.Table, right: pyarrow.Table, by: Sequence[str], how: str
) -> list[tuple[int | None, int | None, int]]:
    """The values of both sides and the time of each row."""
    equal = " AND ".join(["l.t = r.t", *(f"l.{tag} = r.{tag}" for tag in by)])
    query = f"SELECT l.v, r.v, coalesce(l.t, r.t) FROM l {how} JOIN r ON {equal}"
    return _joined(left, right, query)


def _joined(left: pyarrow.Table, right: pyarrow.Table, query: str) -> list[tuple[Any, ...]]:
    with duckdb_session.session() as session:
        session.register("l", left)
        session.register("r", right)
        return session.execute(query).fetchall()
