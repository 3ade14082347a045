"""Windows by DuckDB: the truth that both targets are compared with.

A stream has one partition and is read in order, so the watermark behind each record is known: the
latest time so far, less the disorder, less a millisecond.
"""

import json
import random
from collections.abc import Sequence
from typing import Any

import duckdb_session
import pandas as pd

from sage_flink.common import Record

#: Less than 0.2 s, so that the watermark advances with every millisecond.
OUT_OF_ORDER_S = 0.15
KEYS = ("anna", "bert", "çelik", "")
AGGREGATES = """
    count(*) AS n,
    count(v) AS with_v,
    sum(v) AS total,
    avg(v) AS mean,
    min(v) AS low,
    max(v) AS high,
    stddev_samp(v) AS spread,
    quantile_cont(v, 0.25) AS quarter,
    count(DISTINCT w) AS words,
    arg_min(w, (ms, place)) AS first,
    arg_max(w, (ms, place)) AS last
"""


def shuffled(count: int, *, late: float, seed: int, span_ms: int) -> tuple[Record, ...]:
    """``count`` records over ``span_ms`` of event time, a part ``late`` of them far too late."""
    rand = random.Random(seed)
    made = []
    for number in range(count):
        ms = 1_000_000 + number * span_ms // count
        behind = rand.randrange(150)
        if rand.random() < late:
            behind = rand.randrange(1_000, max(1_001, span_ms // 4))
        value: dict[str, Any] = {"w": rand.choice("abcdefgh"), "deep": {"u": rand.choice(KEYS)}}
        if rand.random() < 0.9:
            whole = rand.random() < 0.5
            value["v"] = rand.randrange(-1000, 1000) if whole else rand.uniform(-1e6, 1e6)
        if rand.random() < 0.05:
            value["v"] = None
        id_ = f"t/0/{number}"
        made.append(Record(id_, value, max(1, ms - behind), origin=id_))
    return tuple(made)


def table(records: Sequence[Record]) -> pd.DataFrame:
    """The records in the order of arrival, each with the watermark before it."""
    rows = [
        {
            "place": place,
            "id": record.id,
            "k": record.value["deep"]["u"],
            "w": record.value["w"],
            "v": record.value.get("v"),
            "ms": record.timestamp_ms,
        }
        for place, record in enumerate(records)
    ]
    frame = pd.DataFrame(rows)
    frame["watermark"] = watermarks(frame["ms"])
    return frame


def watermarks(times_ms: "pd.Series[int]") -> "pd.Series[float]":
    """The watermark before each record of these times, in the order of arrival."""
    return times_ms.cummax().shift(1) - round(OUT_OF_ORDER_S * 1000) - 1


def sliding(
    records: Sequence[Record], size_ms: int, every_ms: int, lateness_ms: int = 0
) -> tuple[pd.DataFrame, set[str]]:
    """The results of sliding windows (tumbling: ``every_ms`` is ``size_ms``), and late ids."""
    over = f"coalesce(start_ms + {size_ms} - 1 + {lateness_ms} <= watermark, false)"
    with duckdb_session.session() as session:
        session.register("stream", table(records))
        session.execute(f"""
            CREATE TEMP VIEW spread AS
            SELECT *, (ms // {every_ms} - i) * {every_ms} AS start_ms
            FROM stream, range({-(-size_ms // every_ms)}) AS r(i)
            WHERE (ms // {every_ms} - i) * {every_ms} > ms - {size_ms}
        """)
        windows = session.execute(f"""
            SELECT k AS key, start_ms, start_ms + {size_ms} AS end_ms, {AGGREGATES}
            FROM spread WHERE NOT {over} GROUP BY ALL
        """).df()
        late = session.execute(f"SELECT id FROM spread GROUP BY id HAVING bool_and({over})")
        return windows, {id_ for (id_,) in late.fetchall()}


def running(records: Sequence[Record], size_ms: int) -> pd.DataFrame:
    """What each tumbling window holds after each of its records, ``n`` of them, without late ones.

    Without the aggregates that DuckDB does not know for a part of a window. In a window that holds
    all, as ``size_ms`` 0 makes one, none is late.
    """
    if size_ms == 0:
        return _running(records, "0", "false")
    over = f"coalesce(ms - ms % {size_ms} + {size_ms} - 1 <= watermark, false)"
    return _running(records, f"ms - ms % {size_ms}", over)


def _running(records: Sequence[Record], start_ms: str, over: str) -> pd.DataFrame:
    with duckdb_session.session() as session:
        session.register("stream", table(records))
        return session.execute(f"""
            SELECT k AS key, {start_ms} AS start_ms, count(*) OVER one AS n,
                count(v) OVER one AS with_v, sum(v) OVER one AS total, min(v) OVER one AS low,
                max(v) OVER one AS high, count(DISTINCT w) OVER one AS words
            FROM stream WHERE NOT {over}
            WINDOW one AS (PARTITION BY k, {start_ms} ORDER BY place)
        """).df()


def counted(records: Sequence[Record], size: int) -> pd.DataFrame:
    """Windows of ``size`` records of each key, and the last one, in the order of arrival."""
    with duckdb_session.session() as session:
        session.register("stream", table(records))
        return session.execute(f"""
            WITH numbered AS (
                SELECT *, (row_number() OVER (PARTITION BY k ORDER BY place) - 1) // {size} AS i
                FROM stream
            )
            SELECT k AS key, i AS index, min(ms) AS start_ms, max(ms) + 1 AS end_ms, {AGGREGATES}
            FROM numbered GROUP BY k, i
        """).df()


def sessions(records: Sequence[Record], gap_ms: int) -> pd.DataFrame:
    """The results of session windows of a stream without late records."""
    with duckdb_session.session() as session:
        session.register("stream", table(records))
        return session.execute(f"""
            WITH marked AS (
                SELECT *, coalesce(ms - lag(ms) OVER one > {gap_ms}, false) AS starts
                FROM stream WINDOW one AS (PARTITION BY k ORDER BY ms, place)
            ), numbered AS (
                SELECT *, count_if(starts) OVER (PARTITION BY k ORDER BY ms, place) AS session
                FROM marked
            )
            SELECT k AS key, min(ms) AS start_ms, max(ms) + {gap_ms} AS end_ms, {AGGREGATES}
            FROM numbered GROUP BY k, session
        """).df()


def differences(
    expected: pd.DataFrame, results: Sequence[Record], by: Sequence[str] = ("key", "start_ms")
) -> list[str]:
    """Each result that differs from the truth, in words; ``by`` are the columns that name one.

    Numbers may differ by 1e-9 of the largest.
    """
    left = {tuple(row[name] for name in by): row for row in _rows(expected)}
    right = {tuple(r.value[name] for name in by): r.value for r in results}
    found = [f"missing: {key}" for key in left.keys() - right.keys()]
    found += [f"too many: {key}" for key in right.keys() - left.keys()]
    for key in left.keys() & right.keys():
        for name, wanted in left[key].items():
            if not _equal(wanted, right[key].get(name)):
                found.append(f"{key}: {name} is {right[key].get(name)!r}, not {wanted!r}")
    return found


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records", double_precision=15))


def _equal(wanted: Any, got: Any) -> bool:
    if isinstance(wanted, str) or wanted is None or got is None:
        return bool(wanted == got)
    return abs(wanted - got) <= 1e-9 * max(1e6, abs(wanted))
