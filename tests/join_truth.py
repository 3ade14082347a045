"""Joins by DuckDB: the truth that both targets are compared with."""

import random
from collections.abc import Sequence
from typing import Any

import duckdb_session
import pandas as pd
from window_truth import shuffled, table, watermarks

from sage_flink.common import Record

#: Of a result: the ids of its records, None for one that is missing, its time and its key.
Result = tuple[str | None, str | None, int, bytes]
_JOINS = {"inner": "JOIN", "left": "LEFT JOIN", "full": "FULL JOIN"}


def side(name: str, count: int, *, late: float, seed: int, span_ms: int) -> tuple[Record, ...]:
    """``count`` records of one input, with their id in the value."""
    made = shuffled(count, late=late, seed=seed, span_ms=span_ms)
    return tuple(_renamed(record, f"{name}{record.id[1:]}") for record in made)


def _renamed(record: Record, id_: str) -> Record:
    return record.replace(id=id_, origin=id_, value={"id": id_, **record.value})


def interval_join(
    left: Sequence[Record], right: Sequence[Record], before_ms: int, after_ms: int, how: str
) -> tuple[list[Result], set[str]]:
    """The results of a join of the records that are not late, and the ids of those that are."""
    with duckdb_session.session() as session:
        for name, records, later_ms in (("l", left, after_ms), ("r", right, before_ms)):
            session.register(f"{name}_stream", table(records))
            session.execute(f"""
                CREATE TEMP VIEW {name}_all AS
                SELECT *, coalesce(ms + {later_ms} <= watermark, false) AS late
                FROM {name}_stream
            """)
            session.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM {name}_all WHERE NOT late")
        rows = session.execute(f"""
            SELECT l.id, r.id, greatest(l.ms, r.ms), coalesce(l.k, r.k)
            FROM l {_JOINS[how]} r
            ON l.k = r.k AND r.ms >= l.ms - {before_ms} AND r.ms <= l.ms + {after_ms}
        """).fetchall()
        late = session.execute("""
            SELECT id FROM l_all WHERE late UNION ALL SELECT id FROM r_all WHERE late
        """).fetchall()
    results = [(one, other, int(ms), key.encode()) for one, other, ms, key in rows]
    return results, {id_ for (id_,) in late}


def left_side(count: int, *, late: float, seed: int, span_ms: int) -> tuple[Record, ...]:
    """Records with their key, as :func:`side` makes them."""
    return tuple(map(_keyed, side("l", count, late=late, seed=seed, span_ms=span_ms)))


def changelog(count: int, *, late: float, seed: int, span_ms: int) -> tuple[Record, ...]:
    """Versions of the same keys: a fifth are deletes, and many have the time of another one."""
    rand = random.Random(seed)
    made = []
    for record in map(_keyed, side("r", count, late=late, seed=seed, span_ms=span_ms)):
        one = record.replace(timestamp_ms=record.timestamp_ms // 40 * 40 or 1)
        if rand.random() < 0.2:
            one = one.replace(kind="delete", value=None, document="key")
        made.append(one)
    return tuple(made)


def _keyed(record: Record) -> Record:
    return record.replace(key=record.value["deep"]["u"].encode())


def asof_join(
    left: Sequence[Record], right: Sequence[Record], how: str
) -> tuple[list[tuple[str, str | None]], set[str]]:
    """Of each result the ids of the left record and of its version; and the ids of late records."""
    with duckdb_session.session() as session:
        for name, records in (("l", left), ("r", right)):
            session.register(f"{name}_stream", _changes(records))
            session.execute(f"""
                CREATE TEMP VIEW {name}_all AS
                SELECT *, coalesce(ms <= watermark, false) AS late FROM {name}_stream
            """)
        session.execute("""
            CREATE TEMP VIEW versions AS
            SELECT k, ms, arg_max(id, place) AS id, arg_max(is_delete, place) AS is_delete
            FROM r_all WHERE NOT late GROUP BY k, ms
        """)
        rows = session.execute("""
            SELECT l.id, CASE WHEN r.is_delete THEN NULL ELSE r.id END
            FROM l_all l ASOF LEFT JOIN versions r ON l.k = r.k AND l.ms >= r.ms
            WHERE NOT l.late
        """).fetchall()
        late = session.execute("""
            SELECT id FROM l_all WHERE late UNION ALL SELECT id FROM r_all WHERE late
        """).fetchall()
    found = [row for row in rows if how == "left" or row[1] is not None]
    return sorted(found, key=repr), {id_ for (id_,) in late}


def _changes(records: Sequence[Record]) -> pd.DataFrame:
    """The records in the order of arrival, each with the watermark before it."""
    frame = pd.DataFrame(
        [
            {
                "place": place,
                "id": record.id,
                "k": (record.key or b"").decode(),
                "ms": record.timestamp_ms,
                "is_delete": record.kind == "delete",
            }
            for place, record in enumerate(records)
        ]
    )
    frame["watermark"] = watermarks(frame["ms"])
    return frame


def window_join(
    left: Sequence[Record], right: Sequence[Record], size_ms: int, how: str
) -> list[tuple[str | None, str | None]]:
    """The ids of the records of each result of a join of tumbling windows, without late records."""
    with duckdb_session.session() as session:
        session.register("l", table(left))
        session.register("r", table(right))
        rows = session.execute(f"""
            SELECT l.id, r.id FROM l {_JOINS[how]} r
            ON l.k = r.k AND l.ms // {size_ms} = r.ms // {size_ms}
        """).fetchall()
    return sorted(rows, key=repr)


def result_of(record: Record) -> Result:
    """The result that the record of a join is, by the ids in its values."""
    ids = (_id(record.value["left"]), _id(record.value["right"]))
    assert record.key is not None
    return (*ids, record.timestamp_ms, record.key)


def in_order(results: Sequence[Result]) -> list[Result]:
    """The results in one order."""
    return sorted(results, key=lambda one: (one[0] or "", one[1] or "", one[2:]))


def _id(value: dict[str, Any] | None) -> str | None:
    return None if value is None else value["id"]
