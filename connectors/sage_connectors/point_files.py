"""Points of a time series as a file, Parquet or CSV: ``time``, then a column per tag and field."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage_connectors.whole_files import by_ending, write_whole
from sage_flink.common.errors import ConfigError
from sage_flink.tsdb import Point


def write_points(file: Path, points: Sequence[Point]) -> None:
    """Write the points in their order; the file appears when all are written.

    ``time`` is nanoseconds since the epoch in CSV, a UTC timestamp in Parquet. A field of the name
    of a tag gets a column ``NAME (field)``.

    Raises:
        ConfigError: the name ends neither with .parquet nor with .csv, or cannot be written.
    """
    write = by_ending(file, {".parquet": _write_parquet, ".csv": _write_csv})
    write_whole(file, lambda part: write(part, _columns(points)))


def _columns(points: Sequence[Point]) -> dict[str, list[Any]]:
    tags = sorted({name for point in points for name in point.tags})
    fields = sorted({name for point in points for name in point.fields})
    columns: dict[str, list[Any]] = {"time": [point.timestamp_ns for point in points]}
    columns |= {name: [point.tags.get(name) for point in points] for name in tags}
    for name in fields:
        column = f"{name} (field)" if name in columns else name
        columns[column] = [point.fields.get(name) for point in points]
    return columns


def _write_csv(file: Path, columns: dict[str, list[Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _write_parquet(file: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    times = arrow.array(columns.pop("time"), arrow.timestamp("ns", tz="UTC"))
    arrays = {name: _array(arrow, name, values) for name, values in columns.items()}
    parquet.write_table(arrow.table({"time": times} | arrays), file)


def _array(arrow: Any, name: str, values: list[Any]) -> Any:
    if any(isinstance(value, float) for value in values):
        values = [float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values]
    try:
        return arrow.array(values)
    except (arrow.ArrowException, OverflowError) as error:
        raise ConfigError(
            f"column {name!r} has values of several types: {error}; use .csv"
        ) from error
