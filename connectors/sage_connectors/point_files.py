"""Points of a time series as a file, Parquet or CSV: ``time``, then a column per tag and field."""

import csv
from collections.abc import Sequence
from pathlib import Path

from sage_connectors.whole_files import by_ending, write_whole
from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.tsdb import Point, to_arrow
from sage_flink.tsdb.frames import columns_of


def write_points(file: Path, points: Sequence[Point]) -> None:
    """Write the points in their order; the file appears when all are written.

    ``time`` is nanoseconds since the epoch in CSV, a UTC timestamp in Parquet. A field of the name
    of a tag gets a column ``NAME (field)``.

    Raises:
        ConfigError: the name ends neither with .parquet nor with .csv, or cannot be written.
    """
    write = by_ending(file, {".parquet": _write_parquet, ".csv": _write_csv})
    write_whole(file, lambda part: write(part, points))


def _write_csv(file: Path, points: Sequence[Point]) -> None:
    columns = columns_of(points).all
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _write_parquet(file: Path, points: Sequence[Point]) -> None:
    from pyarrow import parquet

    try:
        table = to_arrow(points)
    except Rejected as error:
        raise ConfigError(f"{error}; use .csv") from error
    parquet.write_table(table, file)
